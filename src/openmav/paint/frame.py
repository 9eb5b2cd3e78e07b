"""A frame around lines: a title above, a note below; neighbours that belong together share one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint.lines import Line, fit_line, line_width
from openmav.paint.text import cells, fit
from openmav.paint.theme import Palette, ink


@dataclass(frozen=True)
class Edges:
    """Which sides of a frame are open, because they border on a tile of the same group."""

    left_open: bool = False
    right_open: bool = False

    @property
    def inset(self) -> int:
        """Cells of the width that the frame and its padding use."""
        return (1 if self.left_open else 2) + (1 if self.right_open else 2)


CLOSED = Edges()


def note_that_fits(note: str, width: int) -> str:
    """The note, without the last parts (separated by " · ") where it is too wide for `width` cells."""
    parts = note.split(" · ")
    while parts and cells(" · ".join(parts)) > width:
        parts.pop()
    return " · ".join(parts)


def _headed(palette: Palette, heading: Line, legend: Line, width: int) -> Line:
    """The heading, and the legend at the other end of the edge where both fit."""
    gap = width - 4 - line_width(heading) - line_width(legend) - 2
    if not legend or gap < 1:
        return heading
    return [*heading, Segment("─" * gap, ink(palette, "frame")), Segment(" "), *legend, Segment(" ")]


def _rule(palette: Palette, width: int, left: str, right: str, label: Line, label_right: bool) -> Line:
    style = ink(palette, "frame")
    used = sum(cells(segment.text) for segment in label)
    rest = "─" * (width - 3 - used)
    inner = [Segment(rest, style), *label, Segment("─", style)] if label_right else [Segment("─", style), *label, Segment(rest, style)]
    return [Segment(left, style), *inner, Segment(right, style)]


def tile(
    lines: Sequence[Line],
    width: int,
    height: int,
    palette: Palette,
    title: str,
    note: str = "",
    focused: bool = False,
    edges: Edges = CLOSED,
    legend: Line | None = None,
) -> list[Line]:
    """`height` lines of `width` cells: the frame, and inside it `lines`, cut and padded to fit.

    `title` and `note` are cut to fit; they must be safe already. `legend` is drawn at the right of the upper edge where it fits.
    """
    if width < 8 or height < 3:
        return [fit_line(line, width) for line in list(lines)[:height]] + [[Segment(" " * width)]] * max(0, height - len(lines))
    style = ink(palette, "frame")
    room = width - 5
    title = fit(title, room) if cells(title) > room else title
    marked = ink(palette, "accent" if focused else "text", bold=True, underline=focused and not palette.color)
    heading = [Segment(" "), Segment(title, marked), Segment(" ")]
    note = note_that_fits(note, room)
    above = ("─" if edges.left_open else "╭", "─" if edges.right_open else "╮")
    below = ("─" if edges.left_open else "╰", "─" if edges.right_open else "╯")
    footing = [Segment(f" {note} ", ink(palette, "secondary"))] if note else []
    left = [] if edges.left_open else [Segment("│", style)]
    right = [] if edges.right_open else [Segment("│", style)]
    left, right = [*left, Segment(" ")], [Segment(" "), *right]
    inner, blank = width - edges.inset, Segment(" " * (width - edges.inset))
    body = [[*left, *fit_line(line, inner), *right] for line in list(lines)[: height - 2]]
    body += [[*left, blank, *right]] * (height - 2 - len(body))
    return [
        _rule(palette, width, *above, _headed(palette, heading, legend or [], width), False),
        *body,
        _rule(palette, width, *below, footing, True),
    ]
