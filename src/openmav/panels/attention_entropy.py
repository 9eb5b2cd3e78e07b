"""Attention entropy of every layer: the mean over its heads as a bar, and a heat cell for each head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, Palette, cells, ink, line_width, number_text, shares, surprise
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.difference import CellChanges, Difference, cell_changes, change_cell, difference
from openmav.panels.widgets.diverging import signed, signed_shares
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    minus_note,
    missing_of,
    shown_layers,
    value_cell,
    why_empty,
)
from openmav.record import Array
from openmav.view import Selection, View

TITLE = "Attention entropy"
NEEDS = ("attention_entropy",)
LAYERS = True
WEIGHT = 1.5  # of its width beside other layer panels
HELP = """\
What it shows: one row a layer, the highest layer on top: the mean attention entropy of its heads as a bar and a
number, and beside it one cell for each head, from head 0 on the left. Its colour is that of its step in nats, as the
legend on the frame says; without colour, denser cells are higher.

How to read it: low entropy means that a head looks at one or two tokens only; high entropy means that it spreads its
attention over many. The selected head is marked; [ ] and { } select layer and head. Maximise the panel (m) to read
each head's number. With a pinned token, bars and cells show the difference from it: orange is wider, blue is narrower.

Formula: -sum over keys j of a_j ln a_j, where a is the attention row of the last query; in nats, 0 ln 0 = 0. It lies
between 0 (all on one token) and ln(number of tokens that the head can see). Bars are scaled to the largest of this token,
cells have the fixed steps of the text's colours; --scale log or minmax scales both to the largest, never the numbers.

Source: the model's own attention weights at the last position, in 32-bit floating point, for the token under the
cursor.

What is normal: heads differ a lot within a layer; heads that rest on the first token (attention sinks) are near 0.
"none" means that the layer has no softmax attention, such as a state-space layer. Where there are more heads than
cells, a cell is the mean of neighbours, and the lower edge says how many.
"""

DIGITS = 6  # cells of the mean
DECIMALS = 2
LEAST_BAR = 3
NUMBER_CELL = 6  # cells of a head from which on its number is written in it


@dataclass(frozen=True, kw_only=True)
class EntropyData(LayerData):
    values: Array | None  # [layers, heads], nats
    head: int  # the selected one
    heads: int
    difference: Difference | None = None  # from what the user pinned


def data(view: View) -> EntropyData:
    values = view.values("attention_entropy")
    return EntropyData(
        empty=why_empty(view, values is not None),
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, "attention_entropy"),
        values=values,
        head=view.head,
        heads=view.heads,
        difference=difference(view, "attention_entropy"),
    )


def _split(data: EntropyData, width: int) -> tuple[int, int, int]:
    """(cells of bar and number, cells of a head, heads in a cell) for `width` cells."""
    heads = max(data.heads, 1)
    space = max(1, width - LEAST_BAR - DIGITS - 2)
    if heads > space:
        together = math.ceil(heads / space)
        count = math.ceil(heads / together)
        return width - count - 1, 1, together
    wide = NUMBER_CELL if space - heads * NUMBER_CELL >= 12 else max(1, min(3, (width * 6 // 10) // heads))
    return width - heads * wide - 1, wide, 1


def heading(data: EntropyData, box: Box) -> str:
    """Leaves room for the legend where a short title does."""
    delta = "Δ " if data.difference is not None and data.difference.values is not None else ""
    full = f"{delta}Attention entropy, nats"
    options = [*([f"{full} · heads 0–{data.heads - 1}"] if data.heads > 1 else []), full]
    options += [f"{delta}{short}" for short in ("Attention entropy", "Attn. entropy", "Entropy")]
    shown = legend(data, box)
    beside = box.width - line_width(shown) - 4 if shown else box.width
    return fitting([option for option in options[:-1] if cells(option) <= beside] or options, box.width)


def legend(data: EntropyData, box: Box) -> Line | None:
    if data.values is None or data.empty is not None:
        return None
    changes = cell_changes(data.values, data.difference)
    if changes is not None:
        return heat_grid.legend(box.palette, -changes.most, changes.most, "nats", decimals=1, diverging=True)
    if box.scale == "linear":
        return surprise.map_legend(box.palette)
    finite = data.values[np.isfinite(data.values)]
    low = float(finite.min()) if finite.size and box.scale == "minmax" else 0.0
    return heat_grid.legend(box.palette, low, float(finite.max(initial=0.0)), "nats", decimals=1)


def note(data: EntropyData, box: Box) -> str:
    together = _split(data, box.width - gutter_width(data, box))[2]
    parts = [minus_note(data.difference, box), hidden_note(data, box), f"cell: mean of {together} heads" if together > 1 else ""]
    values = data.values
    known = values is not None and 0 <= data.layer < len(values) and data.head < values.shape[1]
    if values is not None and known and np.isfinite(values[data.layer, data.head]):
        parts.append(f"layer {data.layer} head {data.head}: {values[data.layer, data.head]:.2f}")
    return " · ".join(part for part in parts if part)


def _means(row: Array, together: int) -> NDArray[np.float64]:
    """The values of the cells: the heads themselves, or means of neighbours; NaN where a head has none."""
    return np.array([row[at : at + together].mean() for at in range(0, len(row), together)], dtype=np.float64)


def _numbered(colours: NDArray[np.float64], heads: NDArray, marked: int, palette: Palette, is_change: bool) -> Line:
    """Heat cells that are wide enough to hold their numbers."""
    line: Line = []
    for at, (share, value) in enumerate(zip(colours, heads)):
        text = (signed if is_change else number_text)(float(value), DECIMALS).rjust(NUMBER_CELL - 1 - (not palette.color)) + (
            "◂" if at == marked else " "
        )
        if not math.isfinite(value):
            line.append(Segment(text, ink(palette, "warning", bold=True)))
        else:
            line.append(heat_grid.text_cell(palette, text, float(share), NUMBER_CELL, at == marked, diverging=is_change))
    return line


def _head_cells(
    data: EntropyData, box: Box, layer: int, colours: NDArray[np.float64], wide: int, together: int, changes: CellChanges | None
) -> Line:
    heads = data.values[layer] if data.values is not None else np.empty(0, dtype=np.float32)
    if data.missing[layer] is not None and not np.isfinite(heads).any():
        return [Segment("·" * (math.ceil(len(heads) / together) * wide), ink(box.palette, "frame"))]
    marked = data.head // together if layer == data.layer else -1
    if wide == NUMBER_CELL and together == 1:
        shown = heads if changes is None else changes.values[layer]
        return _numbered(colours, shown, marked, box.palette, changes is not None)
    return heat_grid.heat_line(box.palette, colours.tolist(), wide, marked, diverging=changes is not None)


def render(data: EntropyData, box: Box) -> list[Line]:
    values = data.values
    if data.empty is not None or values is None:
        return message(box, data.empty or "")
    means = values.mean(axis=1)
    bars = shares(means, box.scale)
    together = _split(data, box.width - gutter_width(data, box))[2]
    by_head = cell_changes(values, data.difference)
    cellwise = np.array([_means(row, together) for row in (values if by_head is None else by_head.shares)])
    colours = surprise.map_shares(cellwise, box.scale) if by_head is None else cellwise
    before = None if data.difference is None or data.difference.values is None else data.difference.values.mean(axis=1)
    changes = None if before is None else means - before
    reach = None if changes is None else signed_shares(changes, box.scale)

    def cell(layer: int, width: int) -> Line:
        main, wide, together = _split(data, width)
        if changes is not None and reach is not None and data.missing[layer] is None:
            bold = layer == data.layer
            left = change_cell(box, float(changes[layer]), float(reach[layer]), DECIMALS, DIGITS, main, bold=bold)
        else:
            left = value_cell(data, box, layer, float(means[layer]), float(bars[layer]), "entropy", DECIMALS, DIGITS, main)
        return [*left, Segment(" "), *_head_cells(data, box, layer, colours[layer], wide, together, by_head)]

    return layer_lines(data, box, cell)


def pick(data: EntropyData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row, and the head of the cell."""
    rows, gutter = shown_layers(data, box), gutter_width(data, box)
    if not 0 <= y < len(rows):
        return None
    main, wide, together = _split(data, box.width - gutter)
    head = (x - gutter - main - 1) // wide * together
    return Selection(layer=rows[y], head=head if 0 <= head < data.heads else None)
