"""Norm map: how large each layer's parts were for many tokens side by side: layers x tokens, a kind at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, ink, number, number_text, visible
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.heat_grid import Columns, fitting, heat_line
from openmav.panels.widgets.layer_rows import (
    LayerData,
    decimals_for,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    missing_of,
    not_captured,
    shown_layers,
    why_no_layers,
)
from openmav.panels.widgets.norm_history import NormHistory, history_of, norm_ends, norm_shares, token_columns
from openmav.panels.widgets.norm_rows import first_largest
from openmav.panels.widgets.sequence import index_axis
from openmav.settings.run import Aggregation
from openmav.view import Selection, View

TITLE = "Norm map"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm")
MODES = ("MLP", "attention", "residual")
LAYERS = True
WEIGHT = 2.0
FOOT = 1  # the tokens' indices
HELP = """\
What it shows: one row a layer, the highest on top, and one column for each generated token, the newest on the right. A
cell's colour says how large the vector was that the layer's MLP added to the residual stream, as the ramp on the upper
edge shows; without colour, denser is larger. The key v goes on to what attention added,
and to the residual stream itself. Between layer and cells stand the numbers of the token under the cursor.

How to read it: a strong row is a layer that always works hard; a strong column is a token that moved the whole model; a
single strong cell is a layer that has something to say about this token only. Walk with the left and right keys or click a
cell: the marked column is the token that all panels show.

Formula: the L2 norm, sqrt(sum of x squared), of what the sub-block adds to the residual stream, or of the residual stream
after the layer; with --aggregation max_abs the largest |x|. Colours are on a log scale, from the smallest to the largest in
sight (at most a factor of 1,000), because layers differ by orders of magnitude; --scale minmax makes it a linear one.

Source: hooks on the layers, at the last position of each token.

What is normal: rows differ far more than columns: late layers are larger than early ones. In the residual map, a layer
where the colour jumps is one that writes a large, fixed vector. "·" means that the layer has no such part, or that the
token was made before the map was shown.
"""
MEASURES = dict(zip(MODES, NEEDS))
COLUMN = "·"  # the cursor's column beside the selected layer
SHORT = 48  # cells below which the lower edge is brief
LEAST_MAP = 12  # characters that the cells keep before the numbers get a place


@dataclass(frozen=True, kw_only=True)
class NormMapData(LayerData):
    mode: str
    history: NormHistory
    cursor: int
    following: bool
    token: str  # under the cursor
    first_largest: float
    aggregation: Aggregation
    why_none: str  # why there are no norms, where none in sight is known

    @property
    def at_cursor(self) -> NDArray[np.float64] | None:
        """[layers] of the token under the cursor; None where it was made without."""
        kept, at = self.history, self.cursor - self.history.first
        return kept.norms[at] if 0 <= at < len(kept.captured) and kept.captured[at] else None


def data(view: View) -> NormMapData:
    mode = view.mode("norm_map", MODES)
    measure = MEASURES[mode]
    return NormMapData(
        empty=why_no_layers(view),
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, measure),
        mode=mode,
        history=history_of(view, measure),
        cursor=view.cursor,
        following=view.following,
        token=visible(view.step.token) if view.step is not None else "",
        first_largest=first_largest(view, measure),
        aggregation=view.options.aggregation,
        why_none=not_captured(view, measure),
    )


def _digits(data: NormMapData, box: Box) -> int:
    """Characters of the numbers, with a space behind them; 0 where there is no space."""
    digits = decimals_for(data.first_largest)[1] + 1
    return digits if box.width - gutter_width(data, box) - digits >= LEAST_MAP else 0


def _left(data: NormMapData, box: Box) -> int:
    """Characters before the cells."""
    return gutter_width(data, box) + _digits(data, box)


def _columns(data: NormMapData, box: Box) -> Columns:
    return token_columns(data.history.tokens, box.width - _left(data, box), data.cursor)


def heading(data: NormMapData, box: Box) -> str:
    sign = "‖x‖₂" if data.aggregation == "l2" else "max |x|"
    kind = data.mode
    return fitting([f"Norm map · {kind} {sign}, layers by tokens", f"Norm map · {kind} {sign}", f"Norms · {kind}", kind], box.width)


def legend(data: NormMapData, box: Box) -> Line:
    if data.empty is not None:
        return []
    low, high = norm_ends(data.history.table(_columns(data, box)), box.scale)
    return (
        heat_grid.legend(box.palette, low, high, "" if box.scale == "minmax" else "log", decimals_for(data.first_largest)[0])
        if high
        else []
    )


def note(data: NormMapData, box: Box) -> str:
    values = data.at_cursor
    if values is None or not 0 <= data.layer < len(values):
        return ""
    value = float(values[data.layer])
    none = value != value and data.missing[data.layer] is not None
    number = "none" if none else number_text(value, decimals_for(data.first_largest)[0])
    following = MODES[(MODES.index(data.mode) + 1) % len(MODES)]
    short, columns = box.width < SHORT, _columns(data, box)
    tokens = fitting([columns.note("tokens", short), f"◂ {columns.total}"], box.width - 2)
    parts = (tokens, hidden_note(data, box, short), f"layer {data.layer} {data.token} {number}", f"v: {following}")
    return " · ".join(part for part in parts if part)


def render(data: NormMapData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    columns, digits = _columns(data, box), _digits(data, box)
    captured = data.history.known(columns)
    if not any(captured):
        return message(box, data.why_none)
    heat = norm_shares(data.history.table(columns), box.scale)

    def cell(layer: int, width: int) -> Line:
        none = data.missing[layer] is not None
        row = [None if not known or (none and share != share) else float(share) for share, known in zip(heat[layer], captured)]
        marked = columns.cell(data.cursor) if layer == data.layer or not data.following else -1
        sign = heat_grid.MARK if layer == data.layer else COLUMN
        gap = Segment(" " * (width - columns.room - digits))
        return [*_number(data, box, layer, digits), *heat_line(box.palette, row, columns.wide, marked, sign=sign), gap]

    lines = layer_lines(data, box, cell)
    return [*lines, _axis(data, box, columns)] if box.height > data.layers else lines


def _axis(data: NormMapData, box: Box, columns: Columns) -> Line:
    """The indices of the tokens, below their columns."""
    return [Segment(" " * _left(data, box) + index_axis(columns.shown, columns.wide), ink(box.palette, "secondary"))]


def _number(data: NormMapData, box: Box, layer: int, digits: int) -> Line:
    """The number of the token under the cursor."""
    values = data.at_cursor
    if not digits:
        return []
    value = float(values[layer]) if values is not None else np.nan
    if values is None or (value != value and data.missing[layer] is not None):
        return [Segment("none ".rjust(digits), ink(box.palette, "secondary"))]
    role = "text" if np.isfinite(value) else "warning"
    shown = number(value, decimals_for(data.first_largest)[0], digits - 1) + " "
    return [Segment(shown, ink(box.palette, role, bold=layer == data.layer))]


def pick(data: NormMapData, box: Box, x: int, y: int) -> Selection:
    """The layer of the row, and the token of the column."""
    rows = shown_layers(data, box)
    index = _columns(data, box).column(x - _left(data, box))
    return Selection(layer=rows[y] if 0 <= y < len(rows) else None, step=index)
