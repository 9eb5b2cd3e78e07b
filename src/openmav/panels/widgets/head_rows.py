"""All heads of a layer as small multiples: a little chart a head, and where each head looks most.

Where the heads have two rows each, these are bars, scaled to the most that goes to any token but the first; else a row of cells, coloured
by factors of ten.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, columns, fit, ink, percent, widened
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import Columns, condensed, heat_line
from openmav.panels.widgets.sequence import index_axis
from openmav.view import Selection

WIDEST = 4  # cells of a token
TALLEST = 6  # rows of a head
LEAST = 1e-3  # the share at which the colours begin
STRONGEST, WITH_STRONGEST = 20, 60  # cells of the token that a head looks at most; of the box from which on it is named


def label_width(heads: int) -> int:
    return len(f"H{max(heads - 1, 0)}") + 2


def columns_of(rows: NDArray, box: Box) -> Columns:
    """The tokens: all of them, neighbours in one cell where they do not fit."""
    named = STRONGEST if box.width >= WITH_STRONGEST else 0
    return condensed(rows.shape[1], max(box.width - label_width(len(rows)) - named, 1), WIDEST)


def rows_each(rows: NDArray, box: Box) -> int:
    """Rows of a head: more than one where all heads have them."""
    return max(1, min(TALLEST, (box.height - 1) // max(len(rows), 1)))


def heads_in_sight(rows: NDArray, head: int, box: Box) -> range:
    """As many heads as fit above the axis, the selected one among them."""
    fits = max(1, (box.height - (box.height > 2)) // rows_each(rows, box))
    first = min(max(0, head - fits // 2), max(0, len(rows) - fits))
    return range(first, min(first + fits, len(rows)))


def head_lines(rows: NDArray, head: int, tokens: Mapping[int, str], box: Box) -> list[Line]:
    """`rows` [heads, tokens]; a column of several tokens has the sum of their shares. `tokens` names those that heads look at most."""
    where, wide, each = columns_of(rows, box), label_width(len(rows)), rows_each(rows, box)
    quiet = ink(box.palette, "secondary")
    starts = range(0, rows.shape[1], where.together)
    lines: list[Line] = []
    for at in heads_in_sight(rows, head, box):
        row = rows[at].astype(np.float64)
        chosen = at == head
        label = Segment(fit(f"{'▸' if chosen else ' '}H{at}", wide), ink(box.palette, "accent" if chosen else "secondary", bold=chosen))
        first, *more = _chart(box, np.add.reduceat(row, starts), where, each)
        lines.append([label, *first])
        lines += [[Segment(" " * wide), *line] for line in more]
        if box.width >= WITH_STRONGEST:
            lines[-each] += [Segment(" " * (box.width - STRONGEST - wide - where.room)), *_strongest(row, tokens, box)]
    if box.height > len(lines) and box.height > 2:
        lines.append([Segment(" " * wide + index_axis(range(0, rows.shape[1], where.together), where.wide), quiet)])
    return lines[: max(box.height, 0)]


def _chart(box: Box, sums: NDArray[np.float64], where: Columns, each: int) -> list[Line]:
    """The lines of one head."""
    if each == 1:
        return [heat_line(box.palette, log_shares(sums).tolist(), where.wide)]
    finite = np.where(np.isfinite(sums), sums, 0.0)
    most = float(finite[1:].max(initial=0.0)) or float(finite.max(initial=0.0)) or 1.0
    drawn = columns((finite / most).tolist(), each)
    return [[Segment(widened(row, where.wide), ink(box.palette, "attention"))] for row in drawn]


def log_shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colours 0..1 of shares from LEAST to 1, by factors; what is not finite stays so."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(sums), np.clip(1 - np.log(np.maximum(sums, LEAST)) / np.log(LEAST), 0.0, 1.0), np.nan)


def _strongest(row: NDArray[np.float64], tokens: Mapping[int, str], box: Box) -> Line:
    if not np.isfinite(row).all():
        return [Segment("  ! NaN or infinity".ljust(STRONGEST), ink(box.palette, "warning", bold=True))]
    peak = int(np.argmax(row))
    name, share = fit(tokens.get(peak, "?"), STRONGEST - 10), percent(float(row[peak]))
    return [Segment(f"  {name} ", ink(box.palette, "text")), Segment(share, ink(box.palette, "secondary"))]


def pick_head(rows: NDArray, head: int, prompt: int, steps: int, box: Box, x: int, y: int) -> Selection | None:
    """The head of the row, and the generated token of the cell."""
    shown, column = heads_in_sight(rows, head, box), columns_of(rows, box).column(x - label_width(len(rows)))
    y //= rows_each(rows, box)
    if not 0 <= y < len(shown):
        return None
    generated = column is not None and 0 <= column - prompt < steps
    return Selection(head=shown[y], step=column - prompt if generated and column is not None else None)
