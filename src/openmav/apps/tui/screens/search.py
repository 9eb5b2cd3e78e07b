"""The line at the bottom in which the user types what to search for. Imported when it is first opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Static

from openmav.apps.tui.screens.modal import Modal
from openmav.apps.tui.widgets.text_input import TextInput
from openmav.paint import Palette, ink


class SearchScreen(Modal[str | None]):
    """One line over the footer. Enter closes it with the text, escape with None; `count` says in a few words how often a text is found."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False, priority=True)]

    def __init__(self, text: str, count: Callable[[str], str], palette: Palette) -> None:
        super().__init__()
        self._text, self._count, self._palette = text, count, palette

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(Text("/", style=ink(self._palette, "accent", bold=True)), id="slash")
            yield TextInput(self._text, lines=False, id="search", placeholder="text to search for")
            yield Static("", id="hits")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.count()

    @on(Input.Changed)
    def count(self) -> None:
        """Says how often the text is found."""
        if self.is_active:
            words = " · ".join(part for part in (self._count(self.query_one(Input).value), "enter goes · escape cancels") if part)
            self.query_one("#hits", Static).update(Text(words, style=ink(self._palette, "secondary")))

    @on(TextInput.TooLong)
    def refuse_text(self, event: TextInput.TooLong) -> None:
        self.query_one("#hits", Static).update(Text(event.words, style=ink(self._palette, "warning")))

    @on(Input.Submitted)
    def accept(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)
