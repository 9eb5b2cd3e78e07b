"""A panel of several parts: rows that know what a click on them selects, one part below the other or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from rich.segment import Segment

from openmav.paint import Line, cells, fit, fit_line, ink
from openmav.panels.base import Box
from openmav.view import Selection

LEAST = 3  # rows of a part, its heading included
TOKEN, LEAST_TOKEN, LEAST_BAR = 18, 8, 4  # cells of a token at most, of a token beside a bar at least, of a bar at least


class Row(NamedTuple):
    """A line of a part, and what a click on it selects."""

    line: Line
    selects: Selection | None = None


Part: TypeAlias = tuple[int, list[Row]]  # its first cell in the box, and its rows


def heading_row(box: Box, width: int, left: str, right: str = "") -> Row:
    """A quiet heading with something at its right end where there is room."""
    text = left if cells(left) + cells(right) + 1 > width else left + right.rjust(width - cells(left))
    return Row([Segment(fit(text, width), ink(box.palette, "secondary"))])


def token_and_bar(box: Box, room: int) -> tuple[int, int]:
    """(cells of a token, of the longest bar) that share `room` cells with a space between; no bar where both would be too short."""
    if room < LEAST_TOKEN + 1 + LEAST_BAR:
        return max(room, 1), 0
    token = max(LEAST_TOKEN, min(TOKEN, room // 2))
    return token, box.longest(room - 1 - token)


def part_lines(parts: Sequence[Part], height: int) -> list[Line]:
    """All parts side by side, at most `height` lines."""
    high = max(0, min(max(len(rows) for _, rows in parts), height))
    return [_line(parts, y) for y in range(high)]


def _line(parts: Sequence[Part], y: int) -> Line:
    whole: Line = []
    ends = [start for start, _ in parts[1:]]
    for at, (start, rows) in enumerate(parts):
        line = rows[y].line if y < len(rows) else []
        whole += fit_line(line, ends[at] - start) if at < len(ends) else line
    return whole


def pick_part(parts: Sequence[Part], height: int, x: int, y: int) -> Selection | None:
    """What the row at a cell selects."""
    for start, rows in reversed(parts):
        if x >= start:
            return rows[y].selects if 0 <= y < min(len(rows), height) else None
    return None
