"""The candidates of a token in a frame over the text, below the token or above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.segment import Segment

from openmav.paint import Line, fit_line, tile
from openmav.paint.wrap import Row
from openmav.panels.base import Box
from openmav.panels.widgets.candidate_bars import CandidateBars, candidate_rows
from openmav.view import Selection

MOST_WIDTH, MOST_HEIGHT = 46, 14  # cells, frame included
LEAST_WIDTH, LEAST_HEIGHT = 24, 5


class Place(NamedTuple):
    """A popover's box in its panel, frame included."""

    x: int
    y: int
    width: int
    height: int


def place_of(rows: Sequence[Row], cursor: int, data: CandidateBars, box: Box) -> Place | None:
    """Below the cursor's token where there is as much room as above it, else above; None where there is too little."""
    token = next(((x, y) for y, row in enumerate(rows) for x, glyph in enumerate(row) if glyph.token == cursor), None)
    if token is None:
        return None
    glyphs, y = token
    x = sum(glyph.width for glyph in rows[y][:glyphs])
    last = next(at for at in range(len(rows) - 1, -1, -1) if any(glyph.token == cursor for glyph in rows[at]))
    above, below = y, box.height - last - 1
    wanted = min(len(data.tokens) + 3, MOST_HEIGHT)
    width, height = min(MOST_WIDTH, box.width), min(wanted, max(above, below))
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return None
    top = last + 1 if below >= min(wanted, above) else y - height
    return Place(max(0, min(x, box.width - width)), top, width, height)


def with_popover(lines: Sequence[Line], place: Place, data: CandidateBars, box: Box) -> list[Line]:
    """The lines with the popover over them."""
    inner = replace(box, width=place.width - 4, height=place.height - 2)
    rows = [row.line for row in candidate_rows(data, inner, inner.width, inner.height)]
    title = f"in place of {data.tokens[data.chosen]}" if data.chosen >= 0 else "candidates"
    framed = tile(rows, place.width, place.height, box.palette, title, "enter forces · escape closes", focused=True)
    result = [*lines, *([[]] * (place.y + place.height - len(lines)))]
    for at, line in enumerate(framed, place.y):
        whole = fit_line(result[at], box.width)
        left, _, right = Segment.divide(whole, [place.x, place.x + place.width, box.width])
        result[at] = [*left, *line, *right]
    return result


def pick_popover(place: Place, data: CandidateBars, box: Box, x: int, y: int) -> Selection | None:
    """The candidate of the row at a cell of the panel; Selection() where there is none, None outside of the popover."""
    if not (place.x <= x < place.x + place.width and place.y <= y < place.y + place.height):
        return None
    inner = replace(box, width=place.width - 4, height=place.height - 2)
    rows, at = candidate_rows(data, inner, inner.width, inner.height), y - place.y - 1
    return (rows[at].selects if 0 <= at < len(rows) else None) or Selection()
