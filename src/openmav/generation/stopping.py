"""When a text is over, and which tokens may come next: the model's own end, lengths, stop texts, and a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openmav.backends.base import Backend
from openmav.errors import UsageError
from openmav.record import EndReason, Step
from openmav.settings import Settings
from openmav.settings.generation_defaults import GenerationDefaults

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.generation.constraint_mask import TokenMask


class StoppingCriteria:
    """Knows no text of its own: every method takes the tokens that were generated, so that undone ones leave no trace.

    Raises UsageError for a constraint that can't be used with the backend.
    """

    def __init__(self, backend: Backend, settings: Settings, defaults: GenerationDefaults | None = None) -> None:
        self._backend, self._settings = backend, settings
        self._defaults = defaults or GenerationDefaults()
        self._more = 0  # tokens beyond the limit, since the user went on after it
        self._mask: TokenMask | None = None
        if settings.constraint:
            from openmav.generation.constraint_mask import open_mask

            self._mask = open_mask(backend, settings.constraint)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is asked of the text, a line; none for nothing."""
        return () if self._mask is None else (f"the text is constrained: {self._settings.constraint.describe()}",)

    def limit(self, prompt: int) -> int:
        """Tokens to generate at most after a prompt of that many."""
        return self._limit(prompt) + self._more

    def _limit(self, prompt: int) -> int:
        return self._defaults.limit(self._settings.max_new_tokens, prompt)

    def go_on(self, reason: EndReason, prompt: int, count: int) -> int:
        """Let a text of `count` generated tokens that has ended for this reason go on; the tokens that may follow.

        As many as were asked for at first, and no more than the context holds. Raises UsageError where none may follow.
        """
        context, name = self._backend.info.context, self._backend.info.name
        if reason in ("complete", "stuck"):
            raise UsageError(f"the text has ended: the constraint ({self._settings.constraint.describe()}) lets nothing follow")
        if context is not None and prompt + count >= context:
            raise UsageError(f"the context of {name} is full ({context} tokens): undo tokens, or begin with a shorter prompt")
        self._more = max(self._more, count)
        more = self.limit(prompt) - count
        return more if context is None else min(more, context - prompt - count)

    def begin(self, prompt: Sequence[int]) -> EndReason | None:
        """The generated text comes after these tokens; why there can be none, such as a constraint that no token fits."""
        if self._mask is None:
            return None
        self._mask.begin(prompt[-1])
        return self._mask.ended(())

    def allowed(self, ids: Sequence[int]) -> Tensor | None:
        """[vocab] bool: what the constraint lets come after these tokens; None: everything."""
        return None if self._mask is None else self._mask.allowed(ids)

    def need_allowed(self, ids: Sequence[int], token_id: int) -> None:
        """Raises UsageError for a token that the model does not have, or that the constraint does not let come next."""
        vocab = self._backend.info.vocab
        if not 0 <= token_id < vocab:
            raise UsageError(f"there is no token {token_id}; this model has tokens 0 to {vocab - 1}")
        allowed = self.allowed(ids)
        if allowed is not None and not bool(allowed[token_id]):
            raise UsageError(
                f"the constraint ({self._settings.constraint.describe()}) does not allow {self._backend.decode([token_id])!r} here"
            )

    def by_token(self, prompt: int, ids: Sequence[int]) -> EndReason | None:
        """Why the text is over with its last token; `prompt` is the number of tokens before the generated ones."""
        if ids[-1] in self._backend.end_ids:
            return "eos"
        ended = None if self._mask is None else self._mask.ended(ids)
        if ended is not None:
            return ended
        context = self._backend.info.context
        full = context is not None and prompt + len(ids) >= context
        return "length" if full or len(ids) >= self.limit(prompt) else None

    def by_text(self, steps: Sequence[Step], new: str) -> EndReason | None:
        """A stop string that the new text after these steps completes."""
        if not self._settings.stop:
            return None
        reach, tail = max(map(len, self._settings.stop)) + len(new), new
        for step in reversed(steps):
            if len(tail) >= reach:
                break
            tail = step.text + tail
        tail = tail[-reach:]
        return "stop" if any(stop in tail for stop in self._settings.stop) else None
