"""Attention map: a heat cell for each head of each layer: entropy, relative entropy or the share that rests on the first token."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, line_width, number_text, one_line, shares
from openmav.panels import _grid
from openmav.panels._grid import Columns, condensed, fitting, heat_line, text_cell
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, shown_layers, waiting
from openmav.panels._view import View
from openmav.record import Array


class Kind(NamedTuple):
    """One thing that the cells can show."""

    measure: str
    title: str
    unit: str
    top: float | None  # the largest possible value; None: the largest of this token


KINDS = {
    "entropy": Kind("attention_entropy", "entropy", "nats", None),
    "relative entropy": Kind("relative_attention_entropy", "relative entropy", "", 1.0),
    "sink share": Kind("sink_share", "sink share", "", 1.0),
}
TITLE = "Attention map"
NEEDS = tuple(kind.measure for kind in KINDS.values())
MODES = tuple(KINDS)
LAYERS = True
WEIGHT = 1.5
HELP = """\
What it shows: one row a layer, the highest layer on top, and in it one cell for each head, from head 0 on the left. Dark
cells are low, bright cells are high; the ramp on the upper edge says how much. The selected head is marked with ◆, and
its number stands on the lower edge (short: L5.H3); in a wide panel each cell holds its number.

How to read it: the key v goes through three kinds. Entropy: how widely a head spreads its attention, in nats; low is one
or two tokens, high is many. Relative entropy: the same as a share of the widest possible (0 = one token, 1 = all alike),
so that early and late tokens can be compared. Sink share: how much of the attention goes to the first token, where it
does nothing (a "sink"). Select a layer with [ and ], a head with { and }, or click a cell; the panel of the attention row
then shows where that head looks.

Formula: entropy H = -sum over keys j of a_j ln a_j, with a the attention row of the last query; relative entropy = H / ln
n, with n the number of tokens that the head can see; sink share = a_0, plus what a learned sink takes where the model
has one.

Source: the model's own attention weights at the last position, in 32-bit floating point; sinks: Xiao et al. (2023).

What is normal: a few heads near 0 in every layer, many sink heads in the middle layers (a sink share of 0.9 and more),
broad heads at the bottom. "none" means that the layer has no softmax attention. Where there are more heads than cells, a
cell is the mean of neighbours, and the lower edge says how many.
"""
NUMBER_CELL, MOST = 6, 12  # cells of a head from which on its number is written in it, and at most
DECIMALS = 2


def _kind(view: View) -> Kind:
    return KINDS[view.mode("attention_map", MODES)]


def _columns(view: View, room: int) -> Columns:
    wide = MOST if room >= view.heads * NUMBER_CELL else 4
    return condensed(view.heads, room, wide)


def _shares(view: View, kind: Kind, values: Array) -> Array:
    """0..1 of the largest possible, or of the largest of this token where there is none or the reader chose another scale."""
    if kind.top is not None and view.options.scale == "linear":
        return np.asarray(np.clip(values / kind.top, 0, 1), dtype=np.float32)
    return np.where(np.isfinite(values), shares(values, view.options.scale), values).astype(np.float32)


def _ends(view: View, kind: Kind, values: Array) -> tuple[float, float]:
    """The values at the two ends of the ramp."""
    finite = values[np.isfinite(values)]
    if kind.top is not None and view.options.scale == "linear":
        return 0.0, kind.top
    low = float(finite.min()) if finite.size and view.options.scale == "minmax" else 0.0
    return low, float(finite.max()) if finite.size else 0.0


def heading(view: View, width: int) -> str:
    """Leaves room for the legend where a short title does."""
    kind, shown = _kind(view), legend(view, width)
    full = f"Attention map · {kind.title}{f', {kind.unit}' if kind.unit else ''}"
    options = [*([f"{full} · heads 0–{view.heads - 1}"] if view.heads > 1 else []), full, f"Attention · {kind.title}"]
    beside = width - line_width(shown) - 4 if shown else width
    return fitting([option for option in options if cells(option) <= beside] or [*options, kind.title.capitalize()], width)


def legend(view: View, width: int) -> Line | None:
    kind, values = _kind(view), view.values(_kind(view).measure)
    return None if values is None else _grid.legend(view.palette, *_ends(view, kind, values), unit=kind.unit)


def note(view: View, width: int, height: int) -> str:
    values, short = view.values(_kind(view).measure), width < 48
    if values is None or not view.layers:
        return ""
    hidden = hidden_note(view, 0 if short else width, height) if view.gutter else ""
    heads = _columns(view, width - gutter_width(view)).note("heads", short)
    chosen = _selected(view, values, short)
    parts = [heads, chosen, hidden] if short else [hidden, heads, chosen]
    return " · ".join(part for part in [*parts, "v: next kind"] if part)


def _selected(view: View, values: Array, short: bool) -> str:
    """The number of the selected head."""
    if not (0 <= view.layer < len(values) and view.head < values.shape[1]):
        return ""
    kind, value = _kind(view), float(values[view.layer, view.head])
    none = view.why_missing(kind.measure, view.layer) is not None and not np.isfinite(value)
    said = "none" if none else number_text(value, DECIMALS)
    if short:
        return f"L{view.layer}.H{view.head} {said}"
    return f"layer {view.layer} head {view.head}: {said}{f' {kind.unit}' if kind.unit and not none else ''}"


def render(view: View, width: int, height: int) -> list[Line]:
    kind, values = _kind(view), view.values(_kind(view).measure)
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if values is None:
        return not_captured(view, width)
    heat = _shares(view, kind, values)

    def cell(layer: int, room: int) -> Line:
        why = view.why_missing(kind.measure, layer)
        if why is not None and not np.isfinite(values[layer]).any():
            return [Segment(fit(f"none: {one_line(why)}", room), ink(view.palette, "secondary"))]
        return _cells(view, layer, values[layer], heat[layer], _columns(view, room))

    return layer_lines(view, width, height, cell)


def _cells(view: View, layer: int, values: Array, heat: Array, columns: Columns) -> Line:
    marked = columns.cell(view.head) if layer == view.layer else -1
    if columns.wide < NUMBER_CELL or columns.together > 1:
        return heat_line(view.palette, columns.means(heat), columns.wide, marked)
    line: Line = []
    for at, (value, share) in enumerate(zip(values.tolist(), heat.tolist())):
        text = number_text(value, DECIMALS)
        text = f"{text:>4}{_grid.MARK if at == marked else ' '}"
        wide = columns.wide - (not view.palette.color)
        line.append(text_cell(view.palette, text.rjust((wide + len(text) + 1) // 2).ljust(wide), share, columns.wide, at == marked))
    return line


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The layer of the row, and the head of the cell."""
    rows = shown_layers(view, height)
    if not 0 <= y < len(rows):
        return view
    gutter = gutter_width(view)
    head = _columns(view, width - gutter).column(x - gutter)
    view = view.at_layer(rows[y])
    return view if head is None else view.at_head(head)
