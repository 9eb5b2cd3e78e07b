"""Where they part: how far apart two runs are, layers by tokens, and the first layer and token at which they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, ink, line_width
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.heat_grid import Columns, fitting, heat_line
from openmav.panels.widgets.layer_rows import gutter_width, hidden_note, layer_lines, message, shown_layers
from openmav.panels.widgets.layers_apart import ApartData, apart_facts, rows_of, scientific, why_not_compared
from openmav.panels.widgets.norm_history import token_columns
from openmav.panels.widgets.sequence import index_axis, tokens_in_sight
from openmav.record.comparison import PARTS
from openmav.view import Selection, View

TITLE = "Where they part"
NEEDS = ()
MODES = ("residual", "attention", "MLP")
LAYERS = True
WEIGHT = 1.6
FOOT = 1  # the tokens' indices
HELP = """\
What it shows: one row a layer, the highest on top, and one column for each token. A cell's colour says how far apart A and B
are there: the norm of the difference as a share of A's residual stream. ◆ is the first token and layer at which they part, · the token
under the cursor in the selected layer. The key v goes on from the residual stream to attention and to the MLP.

How to read it: the lowest step is what rounding explains, up to the threshold (≤, which a wide legend begins with). A map that stays
there below a row says that the two compute the same up to it; a column that is strong from the bottom is a token on which they
differ at once.

Formula: ‖A - B‖₂ / ‖residual stream of A after the layer‖₂. What is above the threshold has a log scale from the smallest to the largest
in sight, at most a factor of 1,000. The threshold is 8 machine epsilons of the coarser dtype, or --threshold.

Source: hooks on the layers of both models, at the position that predicts each token.

What is normal: a quantised model differs everywhere, most in the middle; a changed weight or an intervention leaves all layers below it
dark. The first token is often further apart than the rest.
"""
COLUMN = "·"
RANGE, LEAST_RANGE = 1000.0, 10.0  # between the ends of the scale above the threshold, at most and at least
WIDE = 60  # cells from which on the legend is whole
ABOVE = 0.2  # of the ramp, from which on it is above the threshold: the first step of that without colour


@dataclass(frozen=True, kw_only=True)
class MapData(ApartData):
    mode: str
    shares: NDArray[np.float64]  # [tokens in sight, layers], from token `start` on; NaN where it is not known
    start: int
    tokens: int
    cursor: int
    following: bool


def data(view: View) -> MapData:
    mode, sight = view.mode("compare_map", MODES), tokens_in_sight(view)
    at = [str(part) for part in PARTS].index(mode)
    none = np.full(view.layers, np.nan)
    rows = [rows_of(view.steps[token], "share", view.layers) for token in sight]
    threshold, first = apart_facts(view)
    return MapData(
        empty=why_not_compared(view),
        layers=view.layers,
        layer=view.layer,
        threshold=threshold,
        first=first,
        mode=mode,
        shares=np.array([none if row is None else row[at] for row in rows], dtype=np.float64).reshape(len(rows), view.layers),
        start=sight.start,
        tokens=len(view.steps),
        cursor=view.cursor,
        following=view.following,
    )


def _columns(data: MapData, box: Box) -> Columns:
    return token_columns(data.tokens, box.width - gutter_width(data, box), data.cursor, least=1)


def _table(data: MapData, columns: Columns) -> NDArray[np.float64]:
    """[layers, tokens in sight]."""
    table: NDArray[np.float64] = data.shares[columns.shown.start - data.start : columns.shown.stop - data.start].T
    return table


def _rounding(data: MapData) -> float:
    """The share that rounding explains."""
    return data.threshold if data.threshold > 0 else 1e-12


def _ends(data: MapData, table: NDArray[np.float64]) -> tuple[float, float]:
    """The shares at the ends of the scale above the threshold."""
    apart = table[np.isfinite(table) & (table > _rounding(data))]
    high = max(float(apart.max(initial=0.0)), LEAST_RANGE * _rounding(data))
    low = max(float(apart.min(initial=high)), high / RANGE)
    return min(low, high / LEAST_RANGE), high


def _heat(data: MapData, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where on the ramp each share is: 0 up to the threshold, from there on by its logarithm. What is not finite stays so."""
    low, high = _ends(data, table)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = ABOVE + (1 - ABOVE) * np.clip(np.log(np.maximum(table, low) / low) / np.log(high / low), 0.0, 1.0)
    return np.where(np.isfinite(table), np.where(table > _rounding(data), place, 0.0), table)


def heading(data: MapData, box: Box) -> str:
    """Leaves room for the legend."""
    room = box.width - line_width(legend(data, replace(box, width=box.width + 2))) - 4  # a title has two cells less at most
    return fitting([f"{TITLE} · {data.mode}, layers by tokens", f"{TITLE} · {data.mode}", f"Part · {data.mode}", data.mode], room)


def legend(data: MapData, box: Box) -> Line:
    if data.empty is not None:
        return []
    low, high = _ends(data, _table(data, _columns(data, box)))
    quiet, steps = ink(box.palette, "secondary"), 4 if box.width < WIDE else 8
    unit = " of ‖A‖, log" if box.width >= WIDE else ""
    ramp = heat_line(box.palette, [ABOVE + (1 - ABOVE) * step / (steps - 1) for step in range(steps)], 1)
    scale = [Segment(f"{scientific(low)} ", quiet), *ramp, Segment(f" {scientific(high)}{unit}", quiet)]
    if box.width < WIDE:
        return scale
    return [Segment(f"≤{scientific(_rounding(data))} ", quiet), *heat_line(box.palette, [0.0], 1), Segment(" "), *scale]


def note(data: MapData, box: Box) -> str:
    if data.empty is not None:
        return ""
    token, layer, part = data.first or (-1, -1, "")
    places = [
        f"◆ first at token {token}, layer {layer}, {part}",
        f"◆ token {token}, layer {layer}, {part}",
        f"◆ token {token}, layer {layer}",
    ]
    first = "they don't part" if data.first is None else fitting(places, box.width - 2)
    following = MODES[(MODES.index(data.mode) + 1) % len(MODES)]
    columns = _columns(data, box)
    tokens = fitting([columns.note("tokens", short=True), f"◂ {columns.total}"], box.width - 2)
    more = (tokens, hidden_note(data, box, short=True))  # what is said where nothing else fits
    ways = ((first, *more, f"v: {following}"), (first, *more), more)
    return fitting([" · ".join(part for part in parts if part) for parts in ways], box.width - 2)


def render(data: MapData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    columns = _columns(data, box)
    table = _table(data, columns)
    heat = _heat(data, table)

    def cell(layer: int, width: int) -> Line:
        row = [None if np.isnan(share) else float(share) for share in heat[layer]]
        at, wide = columns.cell(data.first[0]) if data.first is not None and layer == data.first[1] else -1, columns.wide
        marked = columns.cell(data.cursor) if at < 0 and (layer == data.layer or not data.following) else -1
        if at >= 0 and not box.palette.color:  # a glyph that heat alone does not show
            mark = Segment(heat_grid.MARK.center(wide), ink(box.palette, "accent", bold=True))
            line = [*heat_line(box.palette, row[:at], wide), mark, *heat_line(box.palette, row[at + 1 :], wide)]
        else:
            line = heat_line(box.palette, row, wide, max(at, marked), sign=heat_grid.MARK if at >= 0 else COLUMN)
        return [*line, Segment(" " * (width - columns.room))]

    lines = layer_lines(data, box, cell)
    axis = " " * gutter_width(data, box) + index_axis(columns.shown, columns.wide)
    return [*lines, [Segment(axis, ink(box.palette, "secondary"))]] if box.height > data.layers else lines


def pick(data: MapData, box: Box, x: int, y: int) -> Selection:
    """The layer of the row, and the token of the column."""
    rows = shown_layers(data, box)
    index = _columns(data, box).column(x - gutter_width(data, box))
    return Selection(layer=rows[y] if 0 <= y < len(rows) else None, step=index)
