"""A backend's cache, brought to any text: the tokens that it holds already stay, the rest is recomputed as it was the first time.

Tokens that come again are fed one at a time, as they were when they were generated: so every number of a text is the same, bit
for bit, whichever way one came to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from openmav.backends.base import Backend, Frame, Preparing, Progress
from openmav.backends.sites import HEAD_SITES


class CacheReplayer:
    """One cache, and what it holds: a prompt, and the generated tokens after it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.ready: Callable[[], AbstractContextManager[None]] = backend.ready if isinstance(backend, Preparing) else nullcontext
        self._prompt: tuple[int, ...] = ()
        self._fed: list[int] = []
        self._first: Frame | None = None  # of the prompt's last token

    def prefill(self, prompt: tuple[int, ...], sites: frozenset[str], progress: Progress | None = None) -> Frame:
        """Read a prompt, whatever was there before."""
        self._prompt, self._fed = (), []
        self._first = self.backend.prefill(prompt, sites, progress)
        self._prompt = prompt
        return self._first

    def frame(self, prompt: tuple[int, ...], tokens: Sequence[int], sites: frozenset[str], progress: Progress | None = None) -> Frame:
        """The forward pass that predicts what comes after `tokens`, which follow the prompt, with these sites captured."""
        first = self._first if prompt == self._prompt else None
        if first is None or (not tokens and sites - HEAD_SITES - first.sites.keys()):
            first = self.prefill(prompt, sites if not tokens else frozenset(), progress)
        if not tokens:
            return first
        with self._reset_on_failure():
            self._reach(tokens[:-1], progress)
            frame = self.backend.decode_one_token(tokens[-1], sites)
            self._fed.append(tokens[-1])
        return frame

    def aside(self, prompt: tuple[int, ...], tokens: Sequence[int], sites: frozenset[str]) -> Frame:
        """The forward pass that predicted what comes after `tokens`, run once more for these sites; the cache stays where it is."""
        if self._first is None or prompt != self._prompt or _common_prefix(self._fed, tokens) < len(tokens):
            return self.frame(prompt, tokens, sites)
        if not tokens and not sites - HEAD_SITES - self._first.sites.keys():
            return self._first
        with self.backend.aside():
            if not tokens:
                self._first = self.backend.prefill(prompt, sites)
                return self._first
            self.backend.rewind(len(prompt) + len(tokens) - 1)
            return self.backend.decode_one_token(tokens[-1], sites)

    @contextmanager
    def _reset_on_failure(self) -> Iterator[None]:
        """A forward pass that fails halfway leaves a cache in which some layers hold a token and others don't."""
        try:
            yield
        except BaseException:
            self._prompt, self._fed, self._first = (), [], None
            raise

    def _reach(self, tokens: Sequence[int], progress: Progress | None) -> None:
        """The cache with exactly these tokens after the prompt."""
        cached = _common_prefix(self._fed, tokens)
        self.backend.rewind(len(self._prompt) + cached)
        del self._fed[cached:]
        for count, token_id in enumerate(tokens[cached:], 1):
            if progress is not None and len(tokens) - cached > 1:
                progress(f"recomputing {len(tokens) - cached} tokens", count / (len(tokens) - cached))
            self.backend.decode_one_token(token_id, frozenset())
            self._fed.append(token_id)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    length = min(len(a), len(b))
    if list(a[:length]) == list(b[:length]):
        return length
    return next(i for i in range(length) if a[i] != b[i])
