"""Backends whose text goes through a run: the part that all of them share, and one with edits over the model of another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from openmav.backends.base import Backend, Frame, Progress, RunsText


class OnRun:
    """The part of backends.base.Backend that works on a text: what a backend does with one, its run does."""

    _run: RunsText

    @property
    def length(self) -> int:
        return self._run.length

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """See backends.base.Backend."""
        return self._run.prefill(ids, want, progress)

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """See backends.base.Backend."""
        return self._run.decode_one_token(token_id, want)

    def rewind(self, length: int) -> None:
        """See backends.base.Backend."""
        self._run.rewind(length)

    def aside(self) -> AbstractContextManager[None]:
        """See backends.base.Backend."""
        return self._run.aside()

    def close(self) -> None:
        """Forget the text and what was captured of it; the model stays as it is."""
        self._run.close()


class ModifiedBackend(OnRun):
    """Satisfies backends.base.Backend: the owner's text and description, and a run of its own with the edits."""

    def __init__(self, owner: Backend, run: RunsText) -> None:
        self._owner = owner
        self._run = run
        self.info = owner.info
        self.end_ids = owner.end_ids
        self.missing = owner.missing

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        return self._owner.encode(text, chat=chat)

    def decode(self, ids: Sequence[int]) -> str:
        return self._owner.decode(ids)

    def is_special(self, token_id: int) -> bool:
        return self._owner.is_special(token_id)
