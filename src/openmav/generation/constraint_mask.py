"""Which tokens may come next under a constraint: computed from the tokens that were generated, so that undoing one is exact.

A grammar (a regular expression, a JSON schema) is followed by llguidance over the bytes of the tokens. Banned and required strings are
looked for in the bytes of the text itself, so that it does not matter how they fall into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from openmav.backends.base import Backend, Spelling, TokenBytes
from openmav.errors import UsageError
from openmav.settings.constraint import Constraint

if TYPE_CHECKING:
    from llguidance import LLMatcher

End: TypeAlias = Literal["complete", "stuck"]


def open_mask(backend: Backend, constraint: Constraint) -> TokenMask | None:
    """None where nothing is constrained. Raises UsageError for a backend that does not know what its tokens spell."""
    if not constraint:
        return None
    if not isinstance(backend, Spelling):
        raise UsageError(f"the backend '{backend.info.backend}' cannot constrain a text")
    return TokenMask(backend.spelling(), backend.end_ids, backend.info.vocab, constraint)


class TokenMask:
    """`spelling` says what each token adds to a text; `vocab` logits are there. Token ids are those that were generated."""

    def __init__(self, spelling: TokenBytes, end_ids: frozenset[int], vocab: int, constraint: Constraint) -> None:
        self._spelling = spelling
        self._before = -1  # the token before the generated ones
        self._ends = torch.zeros(vocab, dtype=torch.bool)
        self._ends[[i for i in sorted(end_ids) if i < vocab]] = True
        self._known = [torch.tensor([word is not None for word in words[:vocab]]) for words in spelling.after]
        self._required = [text.encode() for text in constraint.require]
        self._banned = [[_Banned(text.encode(), words, vocab) for text in constraint.ban] for words in spelling.after]
        self._grammar = _Grammar(spelling, end_ids, vocab, constraint)
        self._last: tuple[tuple[int, ...], Tensor] | None = None

    def begin(self, token_id: int) -> None:
        """The generated text comes after this token."""
        if token_id != self._before:
            self._before, self._last = token_id, None
            self._grammar.begin(token_id)

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
        at = self._spelling.left_by(ids[-1] if ids else self._before)
        allowed = self._grammar.allowed(ids) & (self._known[at] | self._ends)
        if not self._grammar.accepts or (self._required and not self._has_all(ids)):
            allowed &= ~self._ends
        tail = self._text(ids, max((len(banned.text) - 1 for banned in self._banned[at]), default=0))
        for banned in self._banned[at]:
            allowed[banned.completed_after(tail)] = False
        return allowed

    def _has_all(self, ids: Sequence[int]) -> bool:
        text = self._spelling.text(ids, self._before)
        return all(wanted in text for wanted in self._required)

    def _text(self, ids: Sequence[int], reach: int) -> bytes:
        """The last `reach` bytes."""
        text, at = b"", len(ids)
        while at and len(text) < reach:
            at -= 1
            text = self._spelling.text(ids[at : at + 1], ids[at - 1] if at else self._before) + text
        return text[len(text) - reach :] if reach < len(text) else text


class _Banned:
    """The tokens that would complete one string: those that hold it, and those that begin with the rest of it."""

    def __init__(self, text: bytes, spelling: Sequence[bytes | None], vocab: int) -> None:
        self.text = text
        words = [(i, word) for i, word in enumerate(spelling[:vocab]) if word]
        self._holding = [i for i, word in words if text in word]
        self._rests = {at: [i for i, word in words if word.startswith(text[at:])] for at in range(1, len(text))}

    def completed_after(self, tail: bytes) -> list[int]:
        result = list(self._holding)
        for at, tokens in self._rests.items():
            if tail.endswith(self.text[:at]):
                result += tokens
        return result


class _Grammar:
    """llguidance's matcher, moved to any text by going back to what it shares with the last one; without a grammar, all is allowed.

    llguidance knows a token of each class after which tokens read differently as one of its own: token + class * size.
    """

    def __init__(self, spelling: TokenBytes, end_ids: frozenset[int], vocab: int, constraint: Constraint) -> None:
        self._spelling, self._vocab, self._size = spelling, vocab, len(spelling.after[0])
        self._before = -1
        self._ids: list[int] = []
        self._matcher: LLMatcher | None = None
        self._grammar = constraint.grammar()
        if self._grammar is not None:
            self._words = _tokenizer(spelling, end_ids)
            self._restart()

    def _restart(self) -> None:
        """A matcher before the first token; one that failed can't be moved any more."""
        from llguidance import LLMatcher

        self._matcher, self._ids = LLMatcher(self._words, self._grammar or "", log_level=0), []

    def begin(self, token_id: int) -> None:
        """The text comes after this token."""
        self._before = token_id

    @property
    def accepts(self) -> bool:
        """Whether the text may end here."""
        return self._matcher is None or self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Nothing can come after this but an end."""
        return self._matcher is not None and self._matcher.is_accepting() and self._matcher.is_stopped()

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """[vocab] bool, the caller's own."""
        if self._matcher is None:
            return torch.ones(self._vocab, dtype=torch.bool)
        self.follow(ids)
        allowed = torch.zeros(self._vocab, dtype=torch.bool)
        if self._matcher.is_stopped() and not self._matcher.is_accepting():
            return allowed
        first = self._size * self._spelling.left_by(ids[-1] if ids else self._before)
        bias = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8)[first : first + min(self._size, self._vocab)] > 0
        if self._matcher.is_error():
            why, stuck = self._matcher.get_error(), self._matcher.get_error().startswith("NoExtension")
            self._restart()
            if stuck:  # no token of the vocabulary goes on
                return allowed
            raise UsageError(f"the constraint cannot be followed any further: {' '.join(why.split())[:160]}")
        allowed[: len(bias)] = torch.from_numpy(bias)
        return allowed

    def follow(self, ids: Sequence[int]) -> None:
        """Raises UsageError for tokens that the grammar does not allow."""
        if self._matcher is None:
            return
        own = [self._size * self._spelling.left_by(last) + i for last, i in zip((self._before, *ids), ids)]
        shared = next((at for at, (a, b) in enumerate(zip(self._ids, own)) if a != b), min(len(self._ids), len(own)))
        if shared < len(self._ids):
            self._matcher.rollback(len(self._ids) - shared)
        more = own[shared:]
        taken = self._matcher.try_consume_tokens(more) if more else 0
        self._ids = own[: shared + taken]
        if taken < len(more):
            if self._matcher.is_error():
                self._restart()
            raise UsageError(f"the constraint does not allow token {shared + taken} of the text; take tokens back")


def _tokenizer(spelling: TokenBytes, end_ids: frozenset[int]) -> Any:
    """llguidance's view of a plain vocabulary; one more token stands for an end where the model has none."""
    from llguidance import LLTokenizer, TokenizerWrapper

    size = len(spelling.after[0])
    words = [word or b"" for kind in spelling.after for word in kind] + [b""]
    ends = [at + i for at in range(0, len(words) - 1, size) for i in sorted(end_ids) if i < size] or [len(words) - 1]
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
