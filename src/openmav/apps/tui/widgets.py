"""Widgets that draw lines: each keeps its strips and repaints only the rows that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from openmav.apps.tui import bars
from openmav.apps.tui.draw import draw_panel, ground
from openmav.apps.tui.layout import Tile
from openmav.apps.tui.messages import Clicked, Wheeled
from openmav.paint import Line, fit, ink, printable
from openmav.panels._view import View


class Lines(Widget):
    """A widget that shows lines as they are."""

    def __init__(self, **arguments: str) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self._strips: list[Strip] = []

    def show_lines(self, lines: Sequence[Line], width: int, ground: Style) -> None:
        """Takes over these lines of `width` cells, on their ground; rows that are as before are not painted again."""
        fresh = [Strip(line, width).apply_style(ground) for line in lines]
        before, self._strips = self._strips, fresh
        if len(before) != len(fresh):
            self.refresh()
            return
        changed = [Region(0, y, width, 1) for y, (old, new) in enumerate(zip(before, fresh)) if old != new]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        return self._strips[y].adjust_cell_length(width) if y < len(self._strips) else Strip.blank(width)


class PanelTile(Lines):
    """One panel in its frame, at a place that the layout gave it."""

    def __init__(self, name: str, module: ModuleType) -> None:
        super().__init__(id=f"panel-{name}", classes="panel")
        self.panel, self.module = name, module
        self.place: Tile | None = None
        self.display = False

    def stand(self, place: Tile | None) -> None:
        """Moves to a place; None hides it."""
        if place == self.place:
            return
        self.place = place
        self.display = place is not None
        if place is not None:
            self.styles.offset = (place.x, place.y)
            self.styles.width, self.styles.height = place.width, place.height

    def show(self, view: View, focused: bool) -> None:
        if self.place is not None:
            self.show_lines(draw_panel(self.module, view, self.place, focused), self.place.width, ground(view))

    def on_click(self, event: events.Click) -> None:
        if self.place is not None:
            left = 1 if self.place.edges.left_open else 2
            self.post_message(Clicked(self.panel, event.x - left, event.y - 1))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(Wheeled(self.panel, -1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(Wheeled(self.panel, 1))


class Header(Lines):
    """The first line; a click runs or pauses."""

    def show(self, view: View, width: int) -> None:
        self.show_lines([bars.header(view, width)], width, ground(view))

    async def on_click(self) -> None:
        await self.app.run_action("toggle_run")


class Footer(Lines):
    """The last line; a click on a key does what the key does."""

    def __init__(self, can: frozenset[str]) -> None:
        super().__init__()
        self._can = self._able = can
        self._going = False
        self._keys: Mapping[str, str] = {}

    def show(self, view: View, width: int, focused: ModuleType) -> None:
        self._going, self._keys = view.status == "running", view.options.keys
        self._able = bars.abilities(self._can, focused)
        self.show_lines([bars.footer(view, self._able, width)], width, ground(view))

    async def on_click(self, event: events.Click) -> None:
        placed = [hint for hint, x in bars.hints(self._able, self._going, self.size.width, self._keys) if x <= event.x]
        if placed:
            await self.app.run_action(placed[-1].action)


class Notice(Lines):
    """Lines above the keys that say what went wrong, or what became of the last command; gone where there is nothing to say."""

    def show(self, view: View, text: str, width: int) -> int:
        """Shows the text and returns the rows that it takes."""
        failed = view.status == "failed"
        words = printable(f"✖ {view.error or 'the model stopped'}   (q quits)" if failed else text).split()
        rows = [""]
        for word in words:
            fits = len(rows[-1]) + len(word) + 2 <= width
            rows = [*rows[:-1], f"{rows[-1]} {word}"] if fits else [*rows, f" {word}"]
        rows, most = [row for row in rows if row], 6 if failed else 2
        if len(rows) > most:
            rows[most - 1 :] = [f"{fit(rows[most - 1], max(0, width - 2)).rstrip()} …"]
        style = ink(view.palette, "warning" if failed else "accent", bold=failed)
        self.display = bool(rows)
        self.styles.height = len(rows)
        self.show_lines([[Segment(fit(row, width), style)] for row in rows], width, ground(view))
        return len(rows)
