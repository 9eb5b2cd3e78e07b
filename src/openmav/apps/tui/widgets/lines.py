"""A widget that draws lines: it keeps its strips and repaints only the rows that changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from openmav.paint import Line


class Lines(Widget):
    """A widget that shows lines as they are."""

    def __init__(self, **arguments: str) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self._strips: list[Strip] = []

    def show_lines(self, lines: Sequence[Line], width: int, ground: Style) -> None:
        """Shows these lines of `width` cells on this background; unchanged rows are not repainted."""
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
