"""Norm map: how large each layer's parts were for many tokens side by side: layers x tokens, a kind at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, ink, number, number_text, shares, visible
from openmav.panels import _grid
from openmav.panels._grid import Columns, fitting, heat_line, windowed
from openmav.panels._layers import decimals_for, gutter_width, hidden_note, layer_lines, not_captured, shown_layers, waiting
from openmav.panels._view import View

TITLE = "Norm map"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm")
MODES = ("MLP", "attention", "residual")
LAYERS = True
WEIGHT = 2.0
HELP = """\
What it shows: one row a layer, the highest on top, and one column for each generated token, the newest on the right. A
cell's colour says how large the vector was that the layer's MLP added to the residual stream, from dark (small) to bright
(large), as the ramp on the upper edge shows; without colour, denser is larger. The key v goes on to what attention added,
and to the residual stream itself. On the right stand the numbers of the token under the cursor.

How to read it: a bright row is a layer that always works hard; a bright column is a token that moved the whole model; a
single bright cell is a layer that has something to say about this token only. Walk with the left and right keys or click a
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
WIDE = 2  # characters of a cell
COLUMN = "·"  # the cursor's column beside the selected layer
RANGE = 1000.0  # between the brightest colour and the darkest, at most
SHORT = 48  # cells below which the lower edge is brief
LEAST_MAP = 12  # characters that the cells keep before the numbers get a place


def _measure(view: View) -> str:
    return MEASURES[view.mode("norm_map", MODES)]


def _digits(view: View, width: int) -> int:
    """Characters of the numbers, with a space before them; 0 where there is no room."""
    room = decimals_for(view, _measure(view))[1] + 1
    return room if width - gutter_width(view) - room >= LEAST_MAP else 0


def _columns(view: View, width: int) -> Columns:
    return windowed(len(view.steps), width - gutter_width(view) - _digits(view, width), WIDE, view.cursor)


def _table(view: View, columns: Columns) -> NDArray[np.float64]:
    """[layers, tokens in sight]: the norms; NaN for tokens that were made without them."""
    measure, none = _measure(view), np.full(view.layers, np.nan)
    rows = np.array([view.steps[at].values.get(measure, none) for at in columns.shown], dtype=np.float64)
    table: NDArray[np.float64] = rows.reshape(-1, view.layers).T
    return table


def _shares(view: View, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colours 0..1: ln(v / low) / ln(high / low), low at least high / RANGE; linear where asked for. What is not finite stays so."""
    finite = table[np.isfinite(table)]
    high = float(finite.max(initial=0.0))
    if view.options.scale == "minmax" or high <= 0:
        return np.where(np.isfinite(table), shares(table, "minmax"), np.nan)
    low = max(float(finite.min()), high / RANGE)
    if low >= high:
        return np.where(np.isfinite(table), 1.0, np.nan)
    return np.where(np.isfinite(table), np.log(np.clip(table, low, high) / low) / np.log(high / low), np.nan)


def heading(view: View, width: int) -> str:
    kind = view.mode("norm_map", MODES)
    sign = "‖x‖₂" if view.options.aggregation == "l2" else "max |x|"
    return fitting([f"Norm map · {kind} {sign}, layers by tokens", f"Norm map · {kind} {sign}", f"Norms · {kind}", kind], width)


def legend(view: View, width: int) -> Line:
    if view.step is None or not view.layers:
        return []
    table = _table(view, _columns(view, width))
    finite = table[np.isfinite(table)]
    if not finite.size:
        return []
    low, high, unit = float(finite.min()), float(finite.max()), ""
    if view.options.scale != "minmax":
        low, unit = max(low, high / RANGE), "log"
    return _grid.legend(view.palette, low, high, unit, decimals_for(view, _measure(view))[0])


def note(view: View, width: int, height: int) -> str:
    values = view.values(_measure(view))
    if view.step is None or values is None or not 0 <= view.layer < len(values):
        return ""
    decimals = decimals_for(view, _measure(view))[0]
    value = float(values[view.layer])
    none = value != value and view.why_missing(_measure(view), view.layer) is not None
    at_cursor = f"layer {view.layer} {visible(view.step.token)} {'none' if none else number_text(value, decimals)}"
    following = MODES[(MODES.index(view.mode("norm_map", MODES)) + 1) % len(MODES)]
    hidden, columns = hidden_note(view, 0 if width < SHORT else width, height) if view.gutter else "", _columns(view, width)
    tokens = fitting([columns.note("tokens", width < SHORT), f"◂ {columns.total}"], width - 2)
    return " · ".join(part for part in (tokens, hidden, at_cursor, f"v: {following}") if part)


def render(view: View, width: int, height: int) -> list[Line]:
    measure = _measure(view)
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    columns, digits = _columns(view, width), _digits(view, width)
    table = _table(view, columns)
    captured = [measure in view.steps[at].values for at in columns.shown]
    if not any(captured):
        return not_captured(view, width)
    heat = _shares(view, table)

    def cell(layer: int, room: int) -> Line:
        none = view.why_missing(measure, layer) is not None
        row = [None if not known or (none and share != share) else float(share) for share, known in zip(heat[layer], captured)]
        marked = columns.cell(view.cursor) if layer == view.layer or not view.following else -1
        sign = _grid.MARK if layer == view.layer else COLUMN
        gap = [Segment(" " * (room - columns.room - digits))]
        return [*heat_line(view.palette, row, WIDE, marked, sign=sign), *gap, *_number(view, layer, digits)]

    return layer_lines(view, width, height, cell)


def _number(view: View, layer: int, digits: int) -> Line:
    """The number of the token under the cursor."""
    values = view.values(_measure(view))
    if not digits:
        return []
    value = float(values[layer]) if values is not None else np.nan
    if values is None or (value != value and view.why_missing(_measure(view), layer) is not None):
        return [Segment("none".rjust(digits), ink(view.palette, "secondary"))]
    chosen = layer == view.layer
    role = "text" if np.isfinite(value) else "warning"
    return [Segment(" " + number(value, decimals_for(view, _measure(view))[0], digits - 1), ink(view.palette, role, bold=chosen))]


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The layer of the row, and the token of the column."""
    rows = shown_layers(view, height)
    columns = _columns(view, width)
    index = columns.column(x - gutter_width(view))
    view = view.at_layer(rows[y]) if 0 <= y < len(rows) else view
    return view if index is None else view.at_step(index)
