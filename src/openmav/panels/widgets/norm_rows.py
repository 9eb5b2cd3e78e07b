"""The rows of a norm a layer, as bars on one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, number_text, shares
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.difference import Difference, change_cell, difference
from openmav.panels.widgets.diverging import signed_shares
from openmav.panels.widgets.heat_grid import Columns, fitting
from openmav.panels.widgets.layer_rows import (
    NUMBER_WIDTH,
    LayerData,
    changes_of,
    decimals_for,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    minus_note,
    missing_of,
    pick_layer,
    value_cell,
    why_empty,
)
from openmav.panels.widgets.norm_history import WIDE, NormHistory, history_of, norm_ends, norm_shares, token_columns
from openmav.panels.widgets.sequence import index_axis
from openmav.panels.widgets.sparkline import spark_lines
from openmav.record import Array
from openmav.settings.run import Aggregation
from openmav.view import Selection, View

GAP, LEAST_HISTORY = 2, 30  # cells between bars and tokens of a maximised panel, and that the tokens need
LEAST_COURSE = (16, 3)  # cells and rows that the selected layer needs below all layers, token by token
LARGE = (10**6, 10**6)  # where the size is not known
SHORT_TITLES = {"Attention": "Attn.", "Residual": "Res."}  # where there is no space for more
LEAST_BAR = 3  # cells of a bar beside a number with decimals
ADDED = ("mlp_norm", "attention_norm")  # what layers add to the residual stream: their bars have one scale


@dataclass(frozen=True, kw_only=True)
class NormData(LayerData):
    """One number a layer, no unit."""

    values: Array | None  # [layers]
    first_largest: float  # of `first_largest`: it sets the decimals for all tokens
    largest: float  # of all measures that this one shares its bars' scale with, at this token
    aggregation: Aggregation
    difference: Difference | None = None  # from what the user pinned
    history: NormHistory | None  # of the tokens in sight, where the panel is maximised or has rows below its layers
    cursor: int


def first_largest(view: View, measure: str) -> float:
    """The largest magnitude of a measure at the run's first token; at the shown one where that has none; 0 where neither has."""
    both = (*view.steps[:1], *([] if view.step is None else [view.step]))
    first = next((step.values[measure] for step in both if measure in step.values), None)
    finite = first[np.isfinite(first)] if first is not None else np.empty(0)
    return float(np.abs(finite).max()) if finite.size else 0.0


def norm_data(view: View, measure: str) -> NormData:
    """The data of a panel that shows one measure of shape [layers]."""
    values = view.values(measure)
    return NormData(
        empty=why_empty(view, values is not None),
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, measure),
        values=values,
        first_largest=first_largest(view, measure),
        largest=max((_largest(view.values(name)) for name in (ADDED if measure in ADDED else (measure,))), default=0.0),
        aggregation=view.options.aggregation,
        difference=difference(view, measure),
        history=history_of(view, measure, WIDE if view.maximised else 1) if _has_history(view) else None,
        cursor=view.cursor,
    )


def _has_history(view: View) -> bool:
    """Whether other tokens are shown: maximised, or below the layers, for the selected one."""
    width, height = view.size or LARGE
    return view.layers > 0 and (view.maximised or (width >= LEAST_COURSE[0] and height >= view.layers + LEAST_COURSE[1]))


def _largest(values: Array | None) -> float:
    return 0.0 if values is None else float(values[np.isfinite(values)].max(initial=0.0))


def norm_lines(data: NormData, box: Box, hue: str) -> list[Line]:
    """Rows of bar and number; maximised, beside them the same layer at the tokens before and after, and what stands where."""
    values = data.values
    if data.empty is not None or values is None:
        return message(box, data.empty or "")
    lengths = shares(values, box.scale, data.largest)
    decimals, digits = _decimals(data, box)
    columns = norm_columns(data, box)
    heat = norm_shares(data.history.table(columns), box.scale) if data.history is not None and columns is not None else None

    changes = changes_of(data.difference, values)
    reach = None if changes is None else signed_shares(changes, box.scale)

    def cell(layer: int, width: int) -> Line:
        main = width if columns is None else width - columns.room - GAP
        if changes is None or reach is None or data.missing[layer] is not None:
            line = value_cell(data, box, layer, float(values[layer]), float(lengths[layer]), hue, decimals, digits, main)
        else:
            bold = layer == data.layer
            line = change_cell(box, float(changes[layer]), float(reach[layer]), decimals, digits + 1, main, bold=bold)
        if columns is None or heat is None or data.history is None:
            return line
        none = data.missing[layer] is not None
        known = data.history.known(columns)
        row = [None if not there or (none and share != share) else float(share) for share, there in zip(heat[layer], known)]
        marked = columns.cell(data.cursor) if layer == data.layer else -1
        return [*line, Segment(" " * GAP), *heat_grid.heat_line(box.palette, row, columns.wide, marked)]

    lines = layer_lines(data, box, cell)
    if columns is None:
        return [*lines, *_course(data, box, hue, box.height - len(lines))]
    if box.height <= len(lines):
        return lines
    left = box.width - columns.room
    axis = fit(f"token {data.cursor}".rjust(left - GAP), left) + index_axis(columns.shown, columns.wide)
    return [*lines, [Segment(axis, ink(box.palette, "secondary"))]]


def _decimals(data: NormData, box: Box) -> tuple[int, int]:
    """(decimals, cells) of the numbers; large ones have no decimals where their bars would have no room beside them."""
    decimals, digits = decimals_for(data.first_largest)
    narrow = box.width - gutter_width(data, box) - digits - 1 < LEAST_BAR
    return (0, digits - 2) if narrow and decimals == 1 and digits > NUMBER_WIDTH else (decimals, digits)


def _course(data: NormData, box: Box, hue: str, rows: int) -> list[Line]:
    """The selected layer's norm in the rows below the layers: what it is, a column a token, and where there is room an axis."""
    left = gutter_width(data, box)
    room = box.width - left
    if data.history is None or rows < LEAST_COURSE[1] or room < LEAST_COURSE[0] or data.missing[data.layer] is not None:
        return []
    quiet, gutter = ink(box.palette, "secondary"), Segment(" " * left)
    columns = token_columns(data.history.tokens, room, data.cursor, least=1)
    values, axis = data.history.table(columns)[data.layer], rows > LEAST_COURSE[1] + 1
    marked = columns.cell(data.cursor)
    chart = spark_lines(box.palette, values.tolist(), rows - 1 - axis, hue, marked, box.scale, columns.wide, data.history.known(columns))
    most = number_text(float(values[np.isfinite(values)].max(initial=0.0)), decimals_for(data.first_largest)[0])
    names = ["layer {}, token by token, up to {}", "layer {} by token, up to {}", "layer {}, up to {}", "up to {1}"]
    name = fitting([text.format(data.layer, most) for text in names], room)
    lines = [[Segment(name, quiet)], *chart, *([[Segment(index_axis(columns.shown, columns.wide), quiet)]] if axis else [])]
    return [[gutter, *line] for line in lines]


def norm_columns(data: NormData, box: Box) -> Columns | None:
    """The tokens beside the bars of a maximised panel; None where there is no room for them."""
    room = box.width * 3 // 5
    if data.history is None or not box.maximised or room < LEAST_HISTORY:
        return None
    return token_columns(data.history.tokens, room, data.cursor)


def norm_note(data: NormData, box: Box) -> str:
    """The layers and the tokens in sight, where not all are."""
    columns = norm_columns(data, box) if data.empty is None else None
    parts = (minus_note(data.difference, box), hidden_note(data, box), columns.note("tokens") if columns is not None else "")
    return " · ".join(part for part in parts if part)


def norm_legend(data: NormData, box: Box) -> Line | None:
    """The colours of the tokens beside the bars."""
    columns = norm_columns(data, box) if data.empty is None else None
    if columns is None or data.history is None:
        return None
    low, high = norm_ends(data.history.table(columns), box.scale)
    unit = "" if box.scale == "minmax" else "log"
    return heat_grid.legend(box.palette, low, high, unit, decimals_for(data.first_largest)[0]) if high else None


def norm_pick(data: NormData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row, and the token of the column beside the bars."""
    columns, layer = norm_columns(data, box), pick_layer(data, box, x, y)
    step = None if columns is None else columns.column(x - (box.width - columns.room)) if x >= box.width - columns.room else None
    return replace(layer, step=step) if layer is not None else None


def norm_pointer(data: NormData, box: Box) -> int | None:
    """Where the token under the cursor stands beside the bars."""
    columns = norm_columns(data, box) if data.empty is None else None
    at = -1 if columns is None else columns.cell(data.cursor)
    return None if columns is None or at < 0 else box.width - columns.room + at * columns.wide


def norm_title(data: NormData, box: Box, what: str) -> str:
    """The title of a norm, with how the chosen aggregation is written where there is space."""
    what = f"Δ {what}" if data.difference is not None and data.difference.values is not None else what
    full = f"{what} {'‖x‖₂' if data.aggregation == 'l2' else 'max |x|'}"
    return next((title for title in (full, what) if cells(title) <= box.width), SHORT_TITLES.get(what, what))
