"""Small charts beside a list, or below it where it is narrow and high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from openmav.paint import Line
from openmav.panels.base import Box
from openmav.panels.widgets.parts import Row, part_lines

WIDE, LEAST_LIST = 100, 8  # cells from which on they stand beside the list; rows of the list from which on they stand below it
GAP = 4  # cells between


class Multiples(NamedTuple):
    """Where the charts stand in a box, their heading included, and what is left to the list."""

    x: int
    y: int
    box: Box
    list_box: Box


def beside_list(count: int, box: Box, width: int) -> Multiples | None:
    """The place of `count` charts with a heading and an axis, and of a list of `width` cells where it is beside; None: no room."""
    if box.width >= WIDE:
        x = width + GAP
        return Multiples(x, 0, replace(box, width=box.width - x), replace(box, width=width))
    for high in (2 * count + 2, count + 2):
        if (y := box.height - high) > LEAST_LIST:
            return Multiples(0, y, replace(box, height=high), replace(box, height=y - 1))
    return None


def together(place: Multiples, listed: Sequence[Line], charts: Sequence[Line], height: int) -> list[Line]:
    """The list and the charts as the lines of one box."""
    if not place.x:
        return [*listed, *([] for _ in range(place.y - len(listed))), *charts]
    high = max(len(listed), len(charts))
    parts = [[*map(Row, lines), *(Row([]) for _ in range(high - len(lines)))] for lines in (listed, charts)]
    return part_lines([(0, parts[0]), (place.x, parts[1])], height)
