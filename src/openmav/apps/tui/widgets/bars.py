"""The first and the last line of the screen, and the notice above the footer."""

from __future__ import annotations

from types import ModuleType

from rich.segment import Segment
from textual import events

from openmav.apps.tui import status_lines
from openmav.apps.tui.keys import key_of
from openmav.apps.tui.layout import has_layout_bar
from openmav.apps.tui.tiles import ground
from openmav.apps.tui.widgets.lines import Lines
from openmav.apps.tui.widgets.messages import LayoutChosen
from openmav.paint import PALETTES, cells, fit, ink, printable, wrap_words
from openmav.view import View


class Header(Lines):
    """The first line; a click runs or pauses."""

    def show(self, view: View, width: int) -> None:
        self.show_lines([status_lines.header(view, width)], width, ground(view))

    async def on_click(self) -> None:
        await self.app.run_action("perform('run')")


class LayoutBar(Lines):
    """The layouts by name, below the first line; a click shows one."""

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None

    def show(self, view: View, width: int, height: int) -> None:
        self._view, self.display = view, has_layout_bar(height)
        self.show_lines([status_lines.layout_bar(view, width)], width, ground(view))

    def on_click(self, event: events.Click) -> None:
        names = [] if self._view is None else status_lines.layout_names(self._view, self.size.width)
        for one in names:
            if one.x <= event.x < one.x + cells(one.text):
                self.post_message(LayoutChosen(one.layout))


class Footer(Lines):
    """The last line; a click on a key does what the key does."""

    def __init__(self, can: frozenset[str]) -> None:
        super().__init__()
        self._can = self._able = can
        self._view: View | None = None

    def show(self, view: View, width: int, focused: ModuleType) -> None:
        self._view, self._able = view, status_lines.abilities(view, self._can, focused)
        self.show_lines([status_lines.footer(view, self._able, width)], width, ground(view))

    async def on_click(self, event: events.Click) -> None:
        shown = [] if self._view is None else status_lines.hints(self._view, self._able, self.size.width)
        placed = [hint for hint, x in shown if x <= event.x]
        if placed:
            await self.app.run_action(f"perform('{placed[-1].id}')")


class Notice(Lines):
    """Lines above the footer for errors and messages; hidden when there are none."""

    def show(self, view: View, text: str, width: int) -> int:
        """Shows the text; returns the rows that it takes."""
        failed = view.status == "failed"
        if failed:
            message = f" · {text}" if text and text != view.notice else ""
            text = f"✖ {view.error or 'the model stopped'}   ({key_of('quit', view.options.keys)} quits){message}"
        rows = [f" {row}" for row in wrap_words(printable(text), width - 2)]
        most = 6 if failed else 2
        if len(rows) > most:
            rows[most - 1 :] = [f"{fit(rows[most - 1], max(0, width - 2)).rstrip()} …"]
        style = ink(PALETTES[view.theme], "warning" if failed else "accent", bold=failed)
        self.display = bool(rows)
        self.styles.height = len(rows)
        self.show_lines([[Segment(fit(row, width), style)] for row in rows], width, ground(view))
        return len(rows)
