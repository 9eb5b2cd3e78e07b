"""A frame around lines: a title above, a note below; neighbours that belong together share one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint.lines import Line, fit_line, line_text, line_width
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


def _pointed(line: Line, at: int, sign: str, palette: Palette) -> Line:
    """The edge with a sign at cell `at`, where it is free there."""
    pointed: Line = []
    for segment in line:
        width = cells(segment.text)
        if 0 <= at < width and segment.text[at] == "─":
            before, after = segment.text[:at], segment.text[at + 1 :]
            parts = (Segment(before, segment.style), Segment(sign, ink(palette, "text", bold=True)), Segment(after, segment.style))
            pointed += [part for part in parts if part.text]
        else:
            pointed.append(segment)
        at -= width
    return pointed


def _beside(note: str, at: int, width: int, seen: bool) -> tuple[str, bool]:
    """The note and whether it stands at the right: where that covers cell `at`, it goes to the left, or loses parts unless `seen`."""
    if at < width - 4 - cells(note):
        return note, True
    if seen or cells(note) <= at - 4:
        return note, cells(note) > at - 4
    before, after = note_that_fits(note, at - 4), note_that_fits(note, width - at - 5)
    return (before, False) if len(before) > len(after) else (after, True)


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
    pointer: int | None = None,
) -> list[Line]:
    """`height` lines of `width` cells: the frame, and inside it `lines`, cut and padded to fit.

    `title` and `note` are cut to fit; they must be safe already. `legend` is drawn at the right of the upper edge where it fits;
    `pointer` is the column of the lines that the edges point at: the note goes to the left where it would cover that.
    """
    if width < 8 or height < 3:
        return [fit_line(line, width) for line in list(lines)[:height]] + [[Segment(" " * width)]] * max(0, height - len(lines))
    style = ink(palette, "frame")
    room = width - 5
    title = fit(title, room) if cells(title) > room else title
    marked = ink(palette, "accent" if focused else "text", bold=True, underline=focused and not palette.color)
    heading = [Segment(" "), Segment(title, marked), Segment(" ")]
    above = ("─" if edges.left_open else "╭", "─" if edges.right_open else "╮")
    below = ("─" if edges.left_open else "╰", "─" if edges.right_open else "╯")
    left = [] if edges.left_open else [Segment("│", style)]
    right = [] if edges.right_open else [Segment("│", style)]
    left, right = [*left, Segment(" ")], [Segment(" "), *right]
    inner, blank = width - edges.inset, Segment(" " * (width - edges.inset))
    body = [[*left, *fit_line(line, inner), *right] for line in list(lines)[: height - 2]]
    body += [[*left, blank, *right]] * (height - 2 - len(body))
    top = _rule(palette, width, *above, _headed(palette, heading, legend or [], width), False)
    at, note, at_right = -1, note_that_fits(note, room), True
    if pointer is not None and 0 <= pointer < inner:
        at = pointer + (1 if edges.left_open else 2)
        top = _pointed(top, at, "▼", palette)
        note, at_right = _beside(note, at, width, line_text(top)[at] == "▼")
    footing = [Segment(f" {note} ", ink(palette, "secondary"))] if note else []
    bottom = _rule(palette, width, *below, footing, at_right)
    return [top, *body, _pointed(bottom, at, "▲", palette) if at >= 0 else bottom]
