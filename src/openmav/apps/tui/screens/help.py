"""Help on the focused panel: how to read it, and all keys. Imported when it is first opened."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from openmav.apps.tui.keys import key_lines
from openmav.apps.tui.screens.modal import Modal
from openmav.paint import PALETTES, ink, one_line
from openmav.view import View


class HelpScreen(Modal[None]):
    """A page over the app; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,f1,q,enter", "dismiss", show=False)]

    def __init__(self, title: str, text: str, view: View, failure: str = "") -> None:
        super().__init__()
        self._title, self._text, self._palette, self._keys, self._failure = title, text, PALETTES[view.theme], view.options.keys, failure
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
