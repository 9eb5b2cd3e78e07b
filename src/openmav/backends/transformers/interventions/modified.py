"""A backend whose forward passes have edits applied, over the model of another backend."""

from __future__ import annotations

from collections.abc import Sequence

from openmav.backends.base import Backend
from openmav.backends.transformers.text_run import OnTextRun, TextRun


class ModifiedBackend(OnTextRun):
    """Satisfies backends.base.Backend: the owner's text and description, and a run of its own with the edits."""

    def __init__(self, owner: Backend, run: TextRun) -> None:
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
