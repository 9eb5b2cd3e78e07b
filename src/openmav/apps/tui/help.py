"""Help on the focused panel: how to read it, and all keys. Loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from openmav.apps.tui.hints import written
from openmav.apps.tui.keymap import keys_of
from openmav.apps.tui.keys import BINDINGS
from openmav.paint import ink, one_line
from openmav.panels._view import View


def key_lines(own: Mapping[str, str]) -> list[tuple[str, str]]:
    """(keys, what they do) of every binding, with the reader's own keys."""
    keys = keys_of(own)
    return [(written(keys[binding.id or ""]), binding.description) for binding in BINDINGS if isinstance(binding, Binding)]


class HelpScreen(ModalScreen[None]):
    """A page over the screen; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,f1,q,enter", "dismiss", show=False)]

    def __init__(self, title: str, text: str, view: View, failure: str = "") -> None:
        super().__init__()
        self._title, self._text, self._palette, self._keys, self._failure = title, text, view.palette, view.options.keys, failure
        self._notes = view.info.notes if view.info else ()

    def compose(self) -> ComposeResult:
        page = Text()
        page.append(f"{self._title}\n\n", style=ink(self._palette, "accent", bold=True))
        if self._failure:
            page.append(f"This panel failed. The end of the traceback:\n\n{self._failure}\n\n", style=ink(self._palette, "warning"))
        for paragraph in self._text.strip().split("\n\n"):
            head, _, rest = paragraph.replace("\n", " ").partition(": ")
            page.append(f"{head}: ", style=ink(self._palette, "key", bold=True))
            page.append(f"{rest}\n\n", style=ink(self._palette, "text"))
        if self._notes:
            page.append("This model and prompt\n\n", style=ink(self._palette, "accent", bold=True))
            page.append("".join(f"{one_line(note)}\n\n" for note in self._notes), style=ink(self._palette, "text"))
        page.append("Keys\n\n", style=ink(self._palette, "accent", bold=True))
        for keys, what in key_lines(self._keys):
            page.append(f"{keys:>22}  ", style=ink(self._palette, "key"))
            page.append(f"{what}\n", style=ink(self._palette, "text"))
        page.append("\nescape closes", style=ink(self._palette, "secondary"))
        with VerticalScroll(id="help"):
            yield Static(page, markup=False)
