"""A line is a list of Rich segments, which a terminal app and a test can both read."""

from __future__ import annotations

from typing import TypeAlias

from rich.segment import Segment

from openmav.paint.text import cells

Line: TypeAlias = list[Segment]


def line_text(line: Line) -> str:
    """The text of the line, without its styles."""
    return "".join(segment.text for segment in line)


def line_width(line: Line) -> int:
    """The width of the line in cells."""
    return sum(cells(segment.text) for segment in line)


def fit_line(line: Line, width: int) -> Line:
    """The line cut or padded to exactly `width` cells; a wide character that does not fit becomes a space."""
    have = line_width(line)
    if have == width:
        return line
    if have < width:
        return [*line, Segment(" " * (width - have))]
    return Segment.adjust_line_length(line, width, pad=True)


def pad_line(left: Line, right: Line, width: int) -> Line:
    """`left` and `right` at the two ends of `width` cells; where both do not fit, `right` is dropped."""
    gap = width - line_width(left) - line_width(right)
    return [*left, Segment(" " * gap), *right] if gap >= 1 else fit_line(left, width)
