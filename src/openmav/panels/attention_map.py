"""Attention map: a heat cell for each head of each layer: entropy, relative entropy or the share that rests on the first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, line_width, number_text, surprise
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.difference import Difference, cell_changes, difference
from openmav.panels.widgets.diverging import signed
from openmav.panels.widgets.heat_grid import Columns, condensed, fitting, heat_line, text_cell
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    minus_note,
    missing_of,
    shown_layers,
    why_empty,
)
from openmav.panels.widgets.sequence import index_axis
from openmav.record import Array
from openmav.view import Selection, View


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
FOOT = 1  # the heads' numbers
HELP = """\
What it shows: one row a layer, the highest layer on top, and in it one cell for each head, from head 0 on the left. The
ramp on the upper edge says which colour is how much: entropy has the steps of the text's colours. The selected head is
marked with ◆, and its number stands on the lower edge (short: L5.H3); in a wide panel each cell holds its number.

How to read it: the key v goes through three kinds. Entropy: how widely a head spreads its attention, in nats; low is one
or two tokens, high is many. Relative entropy: the same as a share of the widest possible (0 = one token, 1 = all alike),
so that early and late tokens can be compared. Sink share: how much of the attention goes to the first token, where it
does nothing (a "sink"). Select a layer with [ and ], a head with { and }, or click a cell; the panel of the attention row
then shows where that head looks. With a pinned token, the cells show the difference from it, orange above 0 and blue below.

Formula: entropy H = -sum over keys j of a_j ln a_j, with a the attention row of the last query; relative entropy = H / ln
n, with n the number of tokens that the head can see; sink share = a_0, plus what a learned sink takes where the model
has one.

Source: the model's own attention weights at the last position, in 32-bit floating point; sinks: Xiao et al. (2023).

What is normal: a few heads near 0 in every layer, many sink heads in the middle layers (a sink share of 0.9 and more),
broad heads at the bottom. "none" means that the layer has no softmax attention. Where there are more heads than cells, a
cell is the mean of neighbours, and the lower edge says how many.
"""
NUMBER_CELL, MOST = 6, 30  # cells of a head from which on its number is written in it, and at most
DECIMALS = 2


@dataclass(frozen=True, kw_only=True)
class MapData(LayerData):
    mode: str
    values: Array | None  # [layers, heads], in the unit of the mode
    head: int  # the selected one
    heads: int
    difference: Difference | None = None  # from what the user pinned


def data(view: View) -> MapData:
    mode = view.mode("attention_map", MODES)
    values = view.values(KINDS[mode].measure)
    return MapData(
        empty=why_empty(view, values is not None),
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, KINDS[mode].measure),
        mode=mode,
        values=values,
        head=view.head,
        heads=view.heads,
        difference=difference(view, KINDS[mode].measure),
    )


def _columns(data: MapData, width: int) -> Columns:
    wide = MOST if width >= data.heads * NUMBER_CELL else 4
    return condensed(data.heads, width, wide)


def _shares(kind: Kind, values: Array, scale: str) -> Array:
    """0..1 of the largest possible; of what is in nats, the fixed steps; of the largest of this token where another scale is chosen."""
    if kind.top is not None and scale == "linear":
        return np.asarray(np.clip(values / kind.top, 0, 1), dtype=np.float32)
    return surprise.map_shares(values, scale).astype(np.float32)


def _ends(kind: Kind, values: Array, scale: str) -> tuple[float, float]:
    """The values at the two ends of the ramp."""
    finite = values[np.isfinite(values)]
    if kind.top is not None and scale == "linear":
        return 0.0, kind.top
    low = float(finite.min()) if finite.size and scale == "minmax" else 0.0
    return low, float(finite.max(initial=0.0))


def heading(data: MapData, box: Box) -> str:
    """Leaves room for the legend where a short title does."""
    kind, shown = KINDS[data.mode], legend(data, box)
    delta = "Δ " if data.values is not None and cell_changes(data.values, data.difference) is not None else ""
    full = f"{delta}Attention map · {kind.title}{f', {kind.unit}' if kind.unit else ''}"
    every = [*([f"{full} · heads 0–{data.heads - 1}"] if data.heads > 1 else []), full, f"{delta}Attention · {kind.title}"]
    options = [*every, delta + kind.title.capitalize()]
    beside = box.width - line_width(shown) - 4 if shown else box.width
    return fitting([option for option in options if cells(option) <= beside] or options, box.width)


def legend(data: MapData, box: Box) -> Line | None:
    kind, values = KINDS[data.mode], data.values
    changes = None if values is None else cell_changes(values, data.difference)
    if changes is not None:
        return heat_grid.legend(box.palette, -changes.most, changes.most, kind.unit, diverging=True)
    if values is not None and kind.top is None and box.scale == "linear":
        return surprise.map_legend(box.palette)
    return None if values is None else heat_grid.legend(box.palette, *_ends(kind, values, box.scale), unit=kind.unit)


def note(data: MapData, box: Box) -> str:
    values, short = data.values, box.width < 48
    if values is None or not data.layers:
        return ""
    hidden = hidden_note(data, box, short)
    heads = _columns(data, box.width - gutter_width(data, box)).note("heads", short)
    selected = _selected(data, values, short)
    parts = [heads, selected, hidden] if short else [minus_note(data.difference, box), hidden, heads, selected]
    return " · ".join(part for part in [*parts, "v: next kind"] if part)


def _selected(data: MapData, values: Array, short: bool) -> str:
    """The number of the selected head."""
    if not (0 <= data.layer < len(values) and data.head < values.shape[1]):
        return ""
    kind, value = KINDS[data.mode], float(values[data.layer, data.head])
    none = data.missing[data.layer] is not None and not np.isfinite(value)
    text = "none" if none else number_text(value, DECIMALS)
    if short:
        return f"L{data.layer}.H{data.head} {text}"
    return f"layer {data.layer} head {data.head}: {text}{f' {kind.unit}' if kind.unit and not none else ''}"


def render(data: MapData, box: Box) -> list[Line]:
    values = data.values
    if data.empty is not None or values is None:
        return message(box, data.empty or "")
    changes = cell_changes(values, data.difference)
    heat = _shares(KINDS[data.mode], values, box.scale) if changes is None else changes.shares
    shown = values if changes is None else changes.values

    def cell(layer: int, width: int) -> Line:
        why = data.missing[layer]
        if why is not None and not np.isfinite(values[layer]).any():
            return [Segment(fit(f"none: {why}", width), ink(box.palette, "secondary"))]
        return _cells(data, box, layer, shown[layer], heat[layer], _columns(data, width), changes is not None)

    lines = layer_lines(data, box, cell)
    return [*lines, _axis(data, box)] if box.height > data.layers else lines


def _axis(data: MapData, box: Box) -> Line:
    """The heads' numbers below their columns: all where they fit, else some."""
    gutter = gutter_width(data, box)
    columns = _columns(data, box.width - gutter)
    if columns.wide >= NUMBER_CELL and columns.together == 1:
        names = "".join(f"H{head}".center(columns.wide) for head in columns.shown)
    else:
        names = index_axis(range(0, columns.count * columns.together, columns.together), columns.wide, 3)
    return [Segment(fit(" " * gutter + names, box.width), ink(box.palette, "secondary"))]


def _cells(data: MapData, box: Box, layer: int, values: NDArray, heat: NDArray, columns: Columns, is_change: bool) -> Line:
    marked = columns.cell(data.head) if layer == data.layer else -1
    if columns.wide < NUMBER_CELL or columns.together > 1:
        return heat_line(box.palette, columns.means(heat), columns.wide, marked, is_change)
    line: Line = []
    for at, (value, share) in enumerate(zip(values.tolist(), heat.tolist())):
        text = (signed if is_change else number_text)(value, DECIMALS)
        text = f"{text:>4}{heat_grid.MARK if at == marked else ' '}"
        wide = columns.wide - (not box.palette.color)
        line.append(
            text_cell(box.palette, text.rjust((wide + len(text) + 1) // 2).ljust(wide), share, columns.wide, at == marked, is_change)
        )
    return line


def pick(data: MapData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row, and the head of the cell."""
    rows, gutter = shown_layers(data, box), gutter_width(data, box)
    if not 0 <= y < len(rows):
        return None
    return Selection(layer=rows[y], head=_columns(data, box.width - gutter).column(x - gutter))
