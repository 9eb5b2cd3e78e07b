"""Which tokens may come next under a constraint: computed from the tokens that were generated, so that it can be taken back exactly.

A grammar (a regular expression, a JSON schema) is followed by llguidance over the bytes of the tokens. Banned and required strings are
looked for in the bytes of the text itself, so that it does not matter how they fall into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from openmav.backends._base import Backend, Spelling
from openmav.constraint import Constraint
from openmav.errors import UsageError

End: TypeAlias = Literal["complete", "stuck"]


def open_fence(backend: Backend, constraint: Constraint) -> Fence | None:
    """None where nothing is asked for. Raises UsageError for a backend that does not know what its tokens spell."""
    if not constraint:
        return None
    if not isinstance(backend, Spelling):
        raise UsageError(f"the backend '{backend.info.backend}' cannot constrain a text")
    return Fence(backend.spelling(), backend.end_ids, backend.info.vocab, constraint)


class Fence:
    """`spelling` are the bytes that each token adds to a text, b"" where it adds none; `vocab` logits are there."""

    def __init__(self, spelling: Sequence[bytes], end_ids: frozenset[int], vocab: int, constraint: Constraint) -> None:
        self._spelling = spelling
        self._ends = torch.zeros(vocab, dtype=torch.bool)
        self._ends[[i for i in sorted(end_ids) if i < vocab]] = True
        self._required = [text.encode() for text in constraint.require]
        self._banned = [_Banned(text.encode(), spelling, vocab) for text in constraint.ban]
        self._grammar = _Grammar(spelling, end_ids, vocab, constraint)
        self._last: tuple[tuple[int, ...], Tensor] | None = None

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """[vocab] bool: what may come after these generated tokens."""
        key = tuple(ids)
        if self._last is None or self._last[0] != key:
            self._last = key, self._compute(key)
        return self._last[1]

    def ended(self, ids: Sequence[int]) -> End | None:
        """Whether the text can't go on: it is complete, or no token is allowed and it is not."""
        self._grammar.follow(ids)
        if self._grammar.finished:
            return "complete"
        return None if bool(self.allowed(ids).any()) else "stuck"

    def _compute(self, ids: tuple[int, ...]) -> Tensor:
        allowed = self._grammar.allowed(ids)
        if self._required and not self._has_all(ids):
            allowed &= ~self._ends
        tail = self._text(ids, max((len(banned.text) - 1 for banned in self._banned), default=0))
        for banned in self._banned:
            allowed[banned.completed_after(tail)] = False
        return allowed

    def _has_all(self, ids: Sequence[int]) -> bool:
        text = b"".join(self._spelling[i] for i in ids)
        return all(wanted in text for wanted in self._required)

    def _text(self, ids: Sequence[int], reach: int) -> bytes:
        """The last `reach` bytes."""
        text = b""
        for i in reversed(ids):
            if len(text) >= reach:
                break
            text = self._spelling[i] + text
        return text[len(text) - reach :] if reach < len(text) else text


class _Banned:
    """The tokens that would complete one string: those that hold it, and those that begin with the rest of it."""

    def __init__(self, text: bytes, spelling: Sequence[bytes], vocab: int) -> None:
        self.text = text
        words = list(enumerate(spelling[:vocab]))
        self._holding = [i for i, word in words if text in word]
        self._rests = {at: [i for i, word in words if word.startswith(text[at:])] for at in range(1, len(text))}

    def completed_after(self, tail: bytes) -> list[int]:
        found = list(self._holding)
        for at, tokens in self._rests.items():
            if tail.endswith(self.text[:at]):
                found += tokens
        return found


class _Grammar:
    """llguidance's matcher, moved to any text by going back to what it shares with the last one; without a grammar, all is allowed."""

    def __init__(self, spelling: Sequence[bytes], end_ids: frozenset[int], vocab: int, constraint: Constraint) -> None:
        self._vocab, self._matcher = vocab, None
        self._ids: list[int] = []
        grammar = constraint.grammar()
        if grammar is not None:
            from llguidance import LLMatcher

            self._matcher = LLMatcher(_tokenizer(spelling, end_ids), grammar, log_level=0)

    @property
    def finished(self) -> bool:
        """Nothing can come after this but an end."""
        return self._matcher is not None and self._matcher.is_accepting() and self._matcher.is_stopped()

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """[vocab] bool, the caller's own."""
        if self._matcher is None:
            return torch.ones(self._vocab, dtype=torch.bool)
        self.follow(ids)
        told = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8)[: self._vocab] > 0
        allowed = torch.zeros(self._vocab, dtype=torch.bool)
        allowed[: len(told)] = torch.from_numpy(told)
        return allowed

    def follow(self, ids: Sequence[int]) -> None:
        """Raises UsageError for tokens that the grammar does not allow."""
        if self._matcher is None:
            return
        shared = next((at for at, (a, b) in enumerate(zip(self._ids, ids)) if a != b), min(len(self._ids), len(ids)))
        if shared < len(self._ids):
            self._matcher.rollback(len(self._ids) - shared)
        more = list(ids[shared:])
        taken = self._matcher.try_consume_tokens(more) if more else 0
        self._ids = [*ids[: shared + taken]]
        if taken < len(more):
            raise UsageError(f"the constraint does not allow token {shared + taken} of the text; take tokens back")


def _tokenizer(spelling: Sequence[bytes], end_ids: frozenset[int]) -> Any:
    """llguidance's view of a plain vocabulary; one more token stands for an end where the model has none."""
    from llguidance import LLTokenizer, TokenizerWrapper

    words = [*spelling, b""]
    ends = sorted(i for i in end_ids if i < len(spelling)) or [len(spelling)]
    return LLTokenizer(TokenizerWrapper(_Words(words, ends)), eos_token=ends)


class _Words:
    """What llguidance asks of a tokenizer that it does not know."""

    bos_token_id = None

    def __init__(self, words: Sequence[bytes], ends: Sequence[int]) -> None:
        self.tokens = words
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted({*ends, *(i for i, word in enumerate(words) if not word)})
        self._by_bytes = {word: i for i, word in enumerate(words) if len(word) == 1}

    def __call__(self, text: bytes) -> list[int]:
        """A token a byte; masks need no more of it."""
        return [self._by_bytes[bytes([byte])] for byte in text if bytes([byte]) in self._by_bytes]
