"""Attention entropy of every layer: the mean over its heads as a bar, and a heat cell for each head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, Palette, heat_runs, ink, level, number_text, shares
from openmav.paint.marks import shade
from openmav.panels.base import Box
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
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
number, and beside it one cell for each head, from head 0 on the left. Dark cells are low, bright cells are high;
without colour, denser cells are higher.

How to read it: low entropy means that a head looks at one or two tokens only; high entropy means that it spreads its
attention over many. The selected head is marked; [ ] and { } select layer and head. Maximise the panel (m) to read
each head's number.

Formula: -sum over keys j of a_j ln a_j, where a is the attention row of the last query; in nats, 0 ln 0 = 0. It lies
between 0 (all on one token) and ln(number of tokens that the head can see). Bars and cells are scaled to the largest
of this token; --scale changes them, never the numbers.

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
    full = "Attention entropy, nats"
    options = ([f"{full} · heads 0–{data.heads - 1}"] if data.heads > 1 else []) + [full, "Attention entropy", "Attn. entropy"]
    return next((option for option in options if len(option) <= box.width), options[-1])


def note(data: EntropyData, box: Box) -> str:
    together = _split(data, box.width - gutter_width(data, box))[2]
    parts = [hidden_note(data, box), f"cell: mean of {together} heads" if together > 1 else ""]
    values = data.values
    if values is not None and data.layers:
        if 0 <= data.layer < len(values) and data.head < values.shape[1] and np.isfinite(values[data.layer, data.head]):
            parts.append(f"layer {data.layer} head {data.head}: {values[data.layer, data.head]:.2f}")
        finite = values[np.isfinite(values)]
        parts += [f"cells 0 to {finite.max():.2f}"] if finite.size and box.scale == "linear" else []
    return " · ".join(part for part in parts if part)


def _cells(row: NDArray[np.float64], together: int) -> list[float]:
    """Shares of the cells: the heads themselves, or means of neighbours; NaN where a head has none."""
    return [float(row[at : at + together].mean()) for at in range(0, len(row), together)]


def _plain(values: list[float], wide: int, marked: int, palette: Palette) -> Line:
    """Heat cells; equal neighbours are one segment. `marked` is the selected head's cell, or -1."""
    steps = len(palette.heat) if palette.color else 5
    levels = [-1 if math.isnan(value) else level(value, steps) * 2 + (at == marked) for at, value in enumerate(values)]
    line: Line = []
    for code, count in heat_runs(levels):
        which, mark = divmod(code, 2)
        share = (which + 0.5) / steps
        if code < 0:
            line.append(Segment("!" * count * wide, ink(palette, "warning", bold=True)))
        elif palette.color:
            text = "◆".center(wide) if mark else " " * (count * wide)
            line.append(Segment(text, ink(palette, "#000000" if share > 0.5 else "#ffffff", palette.heat[which])))
        else:
            line.append(Segment(shade(share) * count * wide, ink(palette, "text", underline=bool(mark))))
    return line


def _numbered(values: list[float], heads: Array, marked: int, palette: Palette) -> Line:
    """Heat cells that are wide enough to hold their numbers."""
    line: Line = []
    for at, (share, value) in enumerate(zip(values, heads)):
        text = number_text(float(value), DECIMALS).rjust(NUMBER_CELL - 1) + ("◂" if at == marked else " ")
        if not math.isfinite(value):
            line.append(Segment(text, ink(palette, "warning", bold=True)))
            continue
        on = palette.heat[level(share, len(palette.heat))]
        line.append(Segment(text, ink(palette, "#000000" if share > 0.5 else "#ffffff", on, bold=at == marked)))
    return line


def _head_cells(data: EntropyData, box: Box, layer: int, lengths: NDArray[np.float64], heads: Array, wide: int, together: int) -> Line:
    if data.missing[layer] is not None and not np.isfinite(heads).any():
        return [Segment("·" * (math.ceil(len(heads) / together) * wide), ink(box.palette, "frame"))]
    shown = _cells(np.where(np.isfinite(heads), lengths, np.nan), together)
    marked = data.head // together if layer == data.layer else -1
    if wide == NUMBER_CELL and together == 1:
        return _numbered(shown, heads, marked, box.palette)
    return _plain(shown, wide, marked, box.palette)


def render(data: EntropyData, box: Box) -> list[Line]:
    values = data.values
    if data.empty is not None or values is None:
        return message(box, data.empty or "")
    means = values.mean(axis=1)
    bars, heat = shares(means, box.scale), shares(values, box.scale)

    def cell(layer: int, width: int) -> Line:
        main, wide, together = _split(data, width)
        left = value_cell(data, box, layer, float(means[layer]), float(bars[layer]), "entropy", DECIMALS, DIGITS, main)
        return [*left, Segment(" "), *_head_cells(data, box, layer, heat[layer], values[layer], wide, together)]

    return layer_lines(data, box, cell)


def pick(data: EntropyData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row, and the head of the cell."""
    rows, gutter = shown_layers(data, box), gutter_width(data, box)
    if not 0 <= y < len(rows):
        return None
    main, wide, together = _split(data, box.width - gutter)
    head = (x - gutter - main - 1) // wide * together
    return Selection(layer=rows[y], head=head if 0 <= head < data.heads else None)
