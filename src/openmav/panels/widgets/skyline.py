"""Text where there is room: its rows apart, in a width that reads well, and above each token a bar as high as its value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, cells, columns
from openmav.paint.wrap import Glyph, Row, wrap
from openmav.panels.widgets.text_window import NOWHERE

LEAST_ROWS = 7  # of a box that has bars
MEASURE = 96  # cells of a row that the eye finds back from
SPACINGS = (6, 4, 2)  # lines of a row of text with its bars; few, so that growing text seldom moves
APART = 2  # lines of a row of text without bars


class Spread(NamedTuple):
    """A row for each line of the panel, those of bars empty, and {line of text: lines of bars above it}."""

    lines: list[Row]
    bars: dict[int, int]

    def text_line(self, y: int) -> int:
        """The line of the text that a line of bars is above; any other line itself."""
        return next((line for line, above in self.bars.items() if line - above <= y <= line), y)


def spread(chunks: Sequence[tuple[str, int]], width: int, height: int, share: Callable[[int], float]) -> Spread | None:
    """The (text, token) chunks in a box that has room for bars above all rows; None where it has not.

    `share` is the height of a token's bar, 0..1; NaN for none.
    """
    if height < LEAST_ROWS or sum(cells(text) for text, _ in chunks) > width * height // APART:
        return None
    for measure in sorted({min(width, MEASURE), width}):
        rows = wrap(chunks, measure)
        with_bars = [any(not math.isnan(share(token)) for token, _ in groupby(glyph.token for glyph in row)) for row in rows]
        for each in SPACINGS:
            above = [(each if has else APART) - 1 for has in with_bars]
            if sum(above) + len(rows) <= height:
                return _placed(rows, above, with_bars, (width - measure) // 2)
    return None


def _placed(rows: Sequence[Row], above: Sequence[int], with_bars: Sequence[bool], margin: int) -> Spread:
    lines: list[Row] = []
    bars: dict[int, int] = {}
    blank = [Glyph(" " * margin, margin, NOWHERE)] if margin else []
    for row, count, has in zip(rows, above, with_bars):
        lines += [*([] for _ in range(count)), [*blank, *row]]
        if has:
            bars[len(lines) - 1] = count
    return Spread(lines, bars)


def bar_lines(row: Row, rows: int, share: Callable[[int], float], style: Callable[[int], Style]) -> list[Line]:
    """The bars above a row of text, `share` as in `spread`."""
    known = {token: share(token) for token in {glyph.token for glyph in row}}
    shares = [math.nan if glyph.text.isspace() else known[glyph.token] for glyph in row]
    lines: list[Line] = []
    for texts in columns([0.0 if math.isnan(high) else high for high in shares], rows):
        shown = [(g.token, (" " if math.isnan(high) else text) * g.width) for text, g, high in zip(texts, row, shares)]
        runs = groupby(shown, key=itemgetter(0))
        lines.append([Segment("".join(text for _, text in run), style(token)) for token, run in runs])
    return lines
