"""Help on the focused panel: how to read it, all keys by group, all panels; `/` searches it. Imported when it is first opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from openmav.apps.tui.finding import match_score
from openmav.apps.tui.keys import groups, key_names, keys_of
from openmav.apps.tui.screens.modal import Modal
from openmav.apps.tui.widgets.text_input import TextInput
from openmav.errors import UsageError
from openmav.paint import PALETTES, ink, one_line, wrap_words
from openmav.plugins import registry
from openmav.plugins.summary import summary
from openmav.view import View


@dataclass(frozen=True)
class Entry:
    """A paragraph of the help under a heading; `name` stands out before its text, keys in a column of their own."""

    heading: str
    name: str
    text: str
    row: bool = False  # one of a table
    role: str = "text"


class HelpScreen(Modal[None]):
    """A page over the app; any of its keys closes it, but for those that scroll and search."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,enter", "leave", show=False),
        Binding("slash", "search", show=False),
    ]

    def __init__(self, title: str, text: str, view: View, failure: str = "") -> None:
        super().__init__()
        self._palette = PALETTES[view.theme]
        self._entries = list(_entries(title, text, view, failure))

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            with VerticalScroll(id="page"):
                yield Static(self._page(""), id="text", markup=False)
            yield TextInput("", lines=False, id="query", placeholder="search the help")
            yield Static(self._hint(), id="hint")

    def on_mount(self) -> None:
        self._input.display = False
        self.query_one("#page").focus()

    def _hint(self, refused: str = "") -> Text:
        style = ink(self._palette, "warning" if refused else "secondary")
        return Text(refused or "/ searches · escape closes", style=style)

    @property
    def _input(self) -> Input:
        return self.query_one("#query", Input)

    @property
    def _width(self) -> int:
        """Of the page, without its frame and scroll bar."""
        return min(100, self.app.size.width * 9 // 10) - 7

    def on_resize(self) -> None:
        self.query_one("#text", Static).update(self._page(self._input.value))

    def _page(self, query: str) -> Text:
        """The entries that have the words of the query, all of them where it is empty."""
        page, heading = Text(), ""
        palette = self._palette
        for entry in self._entries:
            if query.strip() and not match_score(query, f"{entry.heading} {entry.name}", entry.text):
                continue
            if entry.heading != heading:
                heading = entry.heading
                page.append(
                    f"{'' if not page or page.plain.endswith(chr(10) * 2) else chr(10)}{heading}\n\n", ink(palette, "accent", bold=True)
                )
            if entry.row:
                page.append(f"{entry.name:>22}  ", ink(palette, "key"))
                page.append(f"\n{' ' * 24}".join(wrap_words(entry.text, max(12, self._width - 24))) + "\n", ink(palette, entry.role))
            else:
                page.append(f"{entry.name}: " if entry.name else "", ink(palette, "key", bold=True))
                page.append(f"{entry.text}\n\n", ink(palette, entry.role))
        if not page:
            page.append(f"Nothing here has all of: {one_line(query)}", ink(palette, "warning"))
        page.rstrip()
        return page

    @on(Input.Changed)
    def find(self) -> None:
        if self.is_active:
            self.query_one("#text", Static).update(self._page(self._input.value))
            self.query_one("#page", VerticalScroll).scroll_home(animate=False)
            self.query_one("#hint", Static).update(self._hint())

    @on(TextInput.TooLong)
    def refuse_text(self, event: TextInput.TooLong) -> None:
        self.query_one("#hint", Static).update(self._hint(event.words))

    @on(Input.Submitted)
    def read(self) -> None:
        """Back to the page, which keeps to what was found."""
        if self.is_active:
            self.query_one("#page").focus()

    def on_key(self, event: events.Key) -> None:
        """In the search, up and down scroll the page."""
        if self.focused is self._input and event.key in ("up", "down", "pageup", "pagedown"):
            event.stop()
            page = self.query_one("#page", VerticalScroll)
            scroll = {"up": page.scroll_up, "down": page.scroll_down, "pageup": page.scroll_page_up, "pagedown": page.scroll_page_down}
            scroll[event.key](animate=False)

    def action_search(self) -> None:
        self._input.display = True
        self._input.focus()

    def action_leave(self) -> None:
        """Clears the search, else closes."""
        if self._input.display:
            self._input.value, self._input.display = "", False
            self.query_one("#page").focus()
        else:
            self.dismiss(None)


def _entries(title: str, text: str, view: View, failure: str) -> Iterator[Entry]:
    if failure:
        yield Entry(title, "", f"This panel failed. The end of the traceback:\n\n{failure}", role="warning")
    for paragraph in text.strip().split("\n\n"):
        name, _, rest = paragraph.replace("\n", " ").partition(": ")
        yield Entry(title, name, rest)
    for note in view.info.notes if view.info else ():
        yield Entry("This model and prompt", "", one_line(note))
    keys = keys_of(view.options.keys)
    for group, rows in groups().items():
        for row in rows:
            yield Entry(f"Keys: {group.lower()}", key_names(keys[row.id]), row.description, row=True)
    for name in registry.names("panels"):
        try:
            yield Entry("All panels", name.replace("_", " "), one_line(summary(registry.load("panels", name))), row=True)
        except UsageError as error:  # somebody else's panel that does not import
            yield Entry("All panels", name, one_line(str(error)), row=True, role="warning")
