"""A backend's cache, brought to whatever text is asked for: what it holds already stays, the rest is read as it was the first time.

Tokens that come again are fed one at a time, as they were when they were generated: so every number of a text is the same, bit
for bit, whichever way one came to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from openmav.backends._base import HEAD_SITES, Backend, Frame, Progress


class Tape:
    """One cache, and what it holds: a prompt, and the generated tokens after it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
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
        """The forward pass that tells what comes after `tokens`, which follow the prompt, with these sites captured."""
        first = self._first if prompt == self._prompt else None
        if first is None or (not tokens and sites - HEAD_SITES - first.sites.keys()):
            first = self.prefill(prompt, sites if not tokens else frozenset(), progress)
        if not tokens:
            return first
        self._reach(tokens[:-1], progress)
        frame = self.backend.decode_one_token(tokens[-1], sites)
        self._fed.append(tokens[-1])
        return frame

    def aside(self, prompt: tuple[int, ...], tokens: Sequence[int], sites: frozenset[str]) -> Frame:
        """The forward pass that told what comes after `tokens`, run once more for these sites; the cache stays where it is."""
        if self._first is None or prompt != self._prompt or _alike(self._fed, tokens) < len(tokens):
            return self.frame(prompt, tokens, sites)
        if not tokens and not sites - HEAD_SITES - self._first.sites.keys():
            return self._first
        with self.backend.aside():
            if not tokens:
                self._first = self.backend.prefill(prompt, sites)
                return self._first
            self.backend.rewind(len(prompt) + len(tokens) - 1)
            return self.backend.decode_one_token(tokens[-1], sites)

    def _reach(self, tokens: Sequence[int], progress: Progress | None) -> None:
        """The cache with exactly these tokens after the prompt."""
        held = _alike(self._fed, tokens)
        self.backend.rewind(len(self._prompt) + held)
        del self._fed[held:]
        for count, token_id in enumerate(tokens[held:], 1):
            if progress is not None and len(tokens) - held > 1:
                progress(f"reading {len(tokens) - held} tokens again", count / (len(tokens) - held))
            self.backend.decode_one_token(token_id, frozenset())
            self._fed.append(token_id)


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    length = min(len(a), len(b))
    if list(a[:length]) == list(b[:length]):
        return length
    return next(i for i in range(length) if a[i] != b[i])
