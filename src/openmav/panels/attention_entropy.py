"""Attention entropy of every layer: the mean over its heads as a bar, and a heat cell for each head."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, Palette, heat_runs, ink, level, number_text, shares
from openmav.paint.marks import shade
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, shown_layers, value_cell, waiting
from openmav.panels._view import View
from openmav.record import Array

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


def _split(view: View, room: int) -> tuple[int, int, int]:
    """(cells of bar and number, cells of a head, heads in a cell) for `room` cells."""
    heads = max(view.heads, 1)
    space = max(1, room - LEAST_BAR - DIGITS - 2)
    if heads > space:
        together = math.ceil(heads / space)
        count = math.ceil(heads / together)
        return room - count - 1, 1, together
    wide = NUMBER_CELL if space - heads * NUMBER_CELL >= 12 else max(1, min(3, (room * 6 // 10) // heads))
    return room - heads * wide - 1, wide, 1


def heading(view: View, width: int) -> str:
    full = "Attention entropy, nats"
    options = ([f"{full} · heads 0–{view.heads - 1}"] if view.heads > 1 else []) + [full, "Attention entropy", "Attn. entropy"]
    return next((option for option in options if len(option) <= width), options[-1])


def note(view: View, width: int, height: int) -> str:
    together = _split(view, width - gutter_width(view))[2]
    parts = [hidden_note(view, width, height)] if view.gutter else []
    parts += [f"cell: mean of {together} heads"] if together > 1 else []
    values = view.values("attention_entropy")
    if values is not None and view.layers:
        if 0 <= view.layer < len(values) and view.head < values.shape[1] and np.isfinite(values[view.layer, view.head]):
            parts.append(f"layer {view.layer} head {view.head}: {values[view.layer, view.head]:.2f}")
        finite = values[np.isfinite(values)]
        parts += [f"cells 0 to {finite.max():.2f}"] if finite.size and view.options.scale == "linear" else []
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


def _head_cells(view: View, layer: int, lengths: NDArray[np.float64], heads: Array, wide: int, together: int) -> Line:
    if view.why_missing("attention_entropy", layer) is not None and not np.isfinite(heads).any():
        return [Segment("·" * (math.ceil(len(heads) / together) * wide), ink(view.palette, "frame"))]
    shown = _cells(np.where(np.isfinite(heads), lengths, np.nan), together)
    marked = view.head // together if layer == view.layer else -1
    if wide == NUMBER_CELL and together == 1:
        return _numbered(shown, heads, marked, view.palette)
    return _plain(shown, wide, marked, view.palette)


def render(view: View, width: int, height: int) -> list[Line]:
    values = view.values("attention_entropy")
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if values is None:
        return not_captured(view, width)
    means = values.mean(axis=1)
    bars, heat = shares(means, view.options.scale), shares(values, view.options.scale)

    def cell(layer: int, room: int) -> Line:
        main, wide, together = _split(view, room)
        left = value_cell(view, "attention_entropy", layer, float(means[layer]), float(bars[layer]), "entropy", DECIMALS, DIGITS, main)
        return [*left, Segment(" "), *_head_cells(view, layer, heat[layer], values[layer], wide, together)]

    return layer_lines(view, width, height, cell)


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The layer of the row, and the head of the cell."""
    rows = shown_layers(view, height)
    if not 0 <= y < len(rows):
        return view
    view = view.at_layer(rows[y])
    main, wide, together = _split(view, width - gutter_width(view))
    cell = (x - gutter_width(view) - main - 1) // wide
    return view.at_head(cell * together) if 0 <= cell * together < view.heads else view
