"""The command palette: Textual's own, which closes only once however many keys arrive."""

from __future__ import annotations

from textual import on
from textual.await_complete import AwaitComplete
from textual.command import CommandPalette
from textual.widgets import Input


class Palette(CommandPalette):
    """Textual's palette; a second enter that comes with the first one chooses nothing more."""

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Close with this result; does nothing if it is closed already."""
        return super().dismiss(result) if self.is_active else AwaitComplete()  # type: ignore[arg-type]

    @on(Input.Submitted)
    def choose_once(self, event: Input.Submitted) -> None:
        if not self.is_active:
            event.prevent_default()
