"""What all layer panels share: the same row is the same layer in each of them, the highest layer on top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, line_width, number, number_text, one_line, shares
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.difference import Difference, change_cell, difference
from openmav.panels.widgets.diverging import signed_shares
from openmav.panels.widgets.heat_grid import Columns, windowed
from openmav.panels.widgets.norm_history import WIDE, NormHistory, history_of, norm_ends, norm_shares
from openmav.panels.widgets.sequence import index_axis
from openmav.record import Array
from openmav.settings.run import Aggregation
from openmav.view import Selection, View

SHORT_TITLES = {"Attention": "Attn.", "Residual": "Res."}  # where there is no space for more
NUMBER_WIDTH = 5  # cells that a number takes at least
NO_TOKEN = "no token yet"
GAP, LEAST_HISTORY = 2, 30  # cells between bars and tokens of a maximised panel, and that the tokens need
ADDED = ("mlp_norm", "attention_norm")  # what layers add to the residual stream: their bars have one scale
Missing = tuple[str | None, ...]  # [layers], why a layer has no value; None where it has one


@dataclass(frozen=True, kw_only=True)
class LayerData:
    """What the data of every layer panel has."""

    empty: str | None  # why there are no values, "" while the model is loading or reads the prompt; None where there are
    layers: int
    layer: int  # the selected one
    missing: Missing = ()


@dataclass(frozen=True, kw_only=True)
class NormData(LayerData):
    """One number a layer, no unit."""

    values: Array | None  # [layers]
    first_largest: float  # the largest of the run's first token: it sets the decimals for all tokens
    largest: float  # of all measures that this one shares its bars' scale with, at this token
    aggregation: Aggregation
    difference: Difference | None = None  # from what the user pinned
    history: NormHistory | None  # of the tokens that can be in sight, where the panel is maximised
    cursor: int


# ---- data ----------------------------------------------------------------------------------------------------------------


def why_no_step(view: View) -> str | None:
    """Why there is no token to show, for a reader; "" while the model is not ready; None where there is one."""
    if view.step is not None:
        return None
    return "" if view.status in ("loading", "prefill", "failed") else NO_TOKEN


def why_no_layers(view: View) -> str | None:
    """As `why_no_step`, for a panel that needs a model with layers."""
    if view.step is not None and view.layers:
        return None
    return "" if view.status in ("loading", "prefill", "failed") else NO_TOKEN


def not_captured(view: View, measure: str = "") -> str:
    """Why the shown step does not hold a measure, or no longer holds it."""
    dropped = view.step is not None and measure in view.step.dropped
    return "no longer kept for this token, to bound the memory" if dropped else "not captured for this token"


def why_empty(view: View, captured: bool, measure: str = "") -> str | None:
    """Why a layer panel has nothing to show; None where it has."""
    none = why_no_layers(view)
    return none if none is not None or captured else not_captured(view, measure)


def missing_of(view: View, measure: str) -> Missing:
    """Why each layer has no value of the measure."""
    return tuple(None if why is None else one_line(why) for why in (view.why_missing(measure, layer) for layer in range(view.layers)))


def first_largest(view: View, measure: str) -> float:
    """The largest magnitude of a measure at the run's first token; 0 where it is not known."""
    first = next((step.values[measure] for step in view.steps[:1] if measure in step.values), None)
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
        history=history_of(view, measure) if view.maximised and view.layers else None,
        cursor=view.cursor,
    )


def _largest(values: Array | None) -> float:
    return 0.0 if values is None else float(values[np.isfinite(values)].max(initial=0.0))


# ---- drawing -------------------------------------------------------------------------------------------------------------


def shown_layers(data: LayerData, box: Box) -> list[int]:
    """The layers that the box shows, from the top."""
    first = max(0, min(box.scroll, data.layers - box.height))
    return [data.layers - 1 - row for row in range(first, min(first + box.height, data.layers))]


def hidden_note(data: LayerData, box: Box, short: bool = False) -> str:
    """Says which layers are shown where not all are; "" where all are, or where a neighbour says it."""
    rows = shown_layers(data, box) if box.gutter else []
    if len(rows) in (0, data.layers):
        return ""
    above, below = rows[0] < data.layers - 1, rows[-1] > 0
    text = f"{rows[-1]}–{rows[0]} of {data.layers} {'▲' * above}{'▼' * below}"
    return f"layers {text}" if not short and box.width >= len(text) + 10 else text


def gutter_width(data: LayerData, box: Box) -> int:
    """Cells of mark, number and scroll arrow; 0 where a neighbour draws them."""
    return len(str(max(data.layers - 1, 0))) + 3 if box.gutter else 0


def _gutter(data: LayerData, box: Box, rows: Sequence[int], at: int) -> Line:
    if not box.gutter:
        return []
    layer, digits = rows[at], gutter_width(data, box) - 3
    selected = layer == data.layer
    arrow = "▲" if at == 0 and layer < data.layers - 1 else "▼" if at == len(rows) - 1 and layer > 0 else " "
    style = ink(box.palette, "accent" if selected else "secondary", bold=selected)
    return [Segment(f"{'▸' if selected else ' '}{layer:>{digits}}", style), Segment(f"{arrow} ", ink(box.palette, "secondary"))]


def layer_lines(data: LayerData, box: Box, cell: Callable[[int, int], Line]) -> list[Line]:
    """A row for each layer that fits: its number, then `cell(layer, width)`."""
    rows = shown_layers(data, box)
    room = max(0, box.width - gutter_width(data, box))
    return that_fit(box, [[*_gutter(data, box, rows, at), *cell(layer, room)] for at, layer in enumerate(rows)])


def message(box: Box, text: str) -> list[Line]:
    """One quiet line, for example why there is nothing to show; none for ""."""
    return [[Segment(fit(text, box.width), ink(box.palette, "secondary"))]] if text else []


def _narrow(box: Box) -> list[Line]:
    whole = "too narrow (m: maximise)"
    return message(box, whole if box.width >= len(whole) else "narrow: m")


def too_narrow(box: Box) -> list[Line]:
    """What is shown where numbers would have to be cut: the key m gives the panel the whole screen."""
    return _narrow(box)[: max(box.height, 0)]


def nothing_to_show(box: Box, empty: str | None, least: int) -> list[Line] | None:
    """What is shown instead of values: nothing before there is a token, else that the box is narrower than `least`, else why."""
    if box.width < least and empty not in ("", NO_TOKEN):
        return too_narrow(box)
    return None if empty is None else message(box, empty)


def that_fit(box: Box, lines: list[Line]) -> list[Line]:
    """The lines, or the message that the box is too narrow where the frame would cut one of them."""
    return lines if all(line_width(line) <= box.width for line in lines) else _narrow(box)


def overlaid_legend(box: Box) -> Line:
    """What the parts of bars before and after sampling are."""
    quiet, hue = ink(box.palette, "secondary"), ink(box.palette, "probability")
    return [Segment("█ kept ", hue), Segment("▒ gained ", hue), Segment("░ lost by sampling", quiet)]


def decimals_for(largest: float) -> tuple[int, int]:
    """(decimals, cells) of numbers whose `first_largest` is this, so that they stay the same throughout a run."""
    decimals = 3 if 0 < largest < 1 else 2 if largest < 10 else 1
    return decimals, min(max(NUMBER_WIDTH, len(number_text(largest, decimals)) + 1), 2 * NUMBER_WIDTH)


def value_cell(data: LayerData, box: Box, layer: int, value: float, share: float, hue: str, decimals: int, digits: int, width: int) -> Line:
    """A bar and its number in `width` cells; "none" and why where the layer has no such value, a flag where it is not finite."""
    bar_width = max(0, width - digits - 1)
    why = data.missing[layer]
    if why is not None and not math.isfinite(value):
        text = fit(why, bar_width) if bar_width >= 6 else " " * bar_width
        return [Segment(f"{text} {'none':>{digits}}"[:width].rjust(width), ink(box.palette, "secondary"))]
    if not math.isfinite(value):
        flag = f"! {number_text(value, 0)}"
        return [Segment(" " * max(0, width - len(flag))), Segment(flag, ink(box.palette, "warning", bold=True))]
    shown = bar(share, box.longest(bar_width))
    return [
        Segment(shown, ink(box.palette, hue)),
        Segment(" " * (bar_width - len(shown) + 1)),
        Segment(number(value, decimals, digits), ink(box.palette, "text", bold=layer == data.layer)),
    ]


def norm_lines(data: NormData, box: Box, hue: str) -> list[Line]:
    """Rows of bar and number; maximised, beside them the same layer at the tokens before and after, and what stands where."""
    values = data.values
    if data.empty is not None or values is None:
        return message(box, data.empty or "")
    lengths = shares(values, box.scale, data.largest)
    decimals, digits = decimals_for(data.first_largest)
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
    if columns is None or box.height <= len(lines):
        return lines
    left = box.width - columns.room
    axis = fit(f"token {data.cursor}".rjust(left - GAP), left) + index_axis(columns.shown, columns.wide)
    return [*lines, [Segment(axis, ink(box.palette, "secondary"))]]


def changes_of(minus: Difference | None, values: Array) -> Array | None:
    """The values less those that they are compared with; None where there are none."""
    return None if minus is None or minus.values is None else values - minus.values


def norm_columns(data: NormData, box: Box) -> Columns | None:
    """The tokens beside the bars of a maximised panel; None where there is no room for them."""
    room = box.width * 3 // 5
    return windowed(data.history.tokens, room, WIDE, data.cursor) if data.history is not None and room >= LEAST_HISTORY else None


def norm_note(data: NormData, box: Box) -> str:
    """The layers and the tokens in sight, where not all are."""
    columns = norm_columns(data, box) if data.empty is None else None
    parts = (minus_note(data.difference, box), hidden_note(data, box), columns.note("tokens") if columns is not None else "")
    return " · ".join(part for part in parts if part)


def minus_note(minus: Difference | None, box: Box) -> str:
    """What is subtracted; "" where nothing is, or where a neighbour on the left says it."""
    return minus.note if minus is not None and (box.gutter or minus.values is None) else ""


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


def pick_layer(data: LayerData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row that was clicked."""
    rows = shown_layers(data, box)
    return Selection(layer=rows[y]) if 0 <= y < len(rows) else None


def norm_title(data: NormData, box: Box, what: str) -> str:
    """The title of a norm, with how the chosen aggregation is written where there is space."""
    what = f"Δ {what}" if data.difference is not None and data.difference.values is not None else what
    full = f"{what} {'‖x‖₂' if data.aggregation == 'l2' else 'max |x|'}"
    return next((title for title in (full, what) if cells(title) <= box.width), SHORT_TITLES.get(what, what))
