"""Layers apart: how far each layer's attention, MLP and residual stream are apart in two runs, at the token under the cursor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, ink, shares
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import gutter_width, hidden_note, layer_lines, message, shown_layers
from openmav.panels.widgets.layers_apart import HUES, ApartData, amount, apart_facts, is_plain, rows_of, why_not_compared
from openmav.record.comparison import PARTS, parting_of
from openmav.view import Selection, View

TITLE = "Layers apart"
NEEDS = ()
LAYERS = True
WEIGHT = 1.4
FOOT = 1  # what the columns are
HELP = """\
What it shows: one row a layer, the highest on top, and for what attention adds, for what the MLP adds and for the residual stream after
the layer: the norm of the difference of A and B as a bar and a number, and the cosine of the two. ◆ stands where the two part at
this token: the lowest layer that differs by more than rounding explains, and the first of its parts that does.

How to read it: from the bottom upwards. Zeros, then ◆: below that layer both compute the same. Above it the differences go on through the
residual stream. A cosine near 1 with a large difference is the same direction at another length; one near 0 is something else.

Formula: ‖A - B‖₂, and A·B / (‖A‖ ‖B‖); "none" where one of both is zero. They part where ‖A - B‖₂ is above the threshold's share of
the norm of A's residual stream after the layer: 8 machine epsilons of the coarser dtype, or --threshold. Bars are linear, up to
the largest of the token; --scale changes them, never the numbers.

Source: hooks on the layers of both models, at the position that predicts the token.

What is normal: for one model in two dtypes, differences from layer 0 on that grow with the residual stream; for one changed weight or
an intervention, zeros below it.
"""
NUMBER, COSINE, LEAST_BAR = 8, 9, 2  # cells, with a space before each


@dataclass(frozen=True, kw_only=True)
class LayersApartData(ApartData):
    difference: NDArray[np.float64]  # [3, layers] by PARTS
    cosine: NDArray[np.float64]  # [3, layers]; NaN for none
    parting: tuple[int, str] | None  # the layer and the part at this token


def data(view: View) -> LayersApartData:
    none = np.full((len(PARTS), view.layers), np.nan)
    difference, cosine = (rows_of(view.step, name, view.layers) for name in ("difference", "cosine"))
    threshold, first = apart_facts(view)
    return LayersApartData(
        empty=why_not_compared(view),
        layers=view.layers,
        layer=view.layer,
        threshold=threshold,
        first=first,
        difference=none if difference is None else difference,
        cosine=none if cosine is None else cosine,
        parting=None if view.step is None else parting_of(view.step),
    )


def heading(data: LayersApartData, box: Box) -> str:
    cosine = _columns(box, max(0, box.width - gutter_width(data, box)))[2]
    words = f"‖A−B‖₂{' and cosine' * cosine}"
    if not _has_foot(data, box):
        columns = ", ".join(PARTS)
        return fitting([f"{TITLE} · ‖A−B‖₂ of {columns}", f"{TITLE} · {columns}", f"Apart: {columns}", TITLE, "Apart"], box.width)
    return fitting([f"{TITLE} · {words} at this token", f"{TITLE} · {words}", TITLE, "Apart"], box.width)


def note(data: LayersApartData, box: Box) -> str:
    if data.empty is not None:
        return ""
    where = "the same within rounding" if data.parting is None else f"◆ parts at layer {data.parting[0]}, {data.parting[1]}"
    return " · ".join(part for part in (where, hidden_note(data, box, short=True)) if part)


def _columns(box: Box, room: int) -> tuple[int, int, bool]:
    """(cells of a part, of its bar, is there a cosine)."""
    part = room // len(PARTS)
    cosine = part >= 1 + NUMBER + COSINE
    return part, max(0, part - 1 - NUMBER - COSINE * cosine - 1), cosine


def render(data: LayersApartData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    finite = data.difference[np.isfinite(data.difference)]
    largest = float(finite.max(initial=0.0))
    plain = is_plain(data.difference)
    lengths = np.array([shares(row, box.scale, largest) for row in data.difference])

    def cell(layer: int, width: int) -> Line:
        part, longest, cosine = _columns(box, width)
        line: Line = []
        for at, name in enumerate(PARTS):
            parts_here = data.parting == (layer, name)
            value, together = float(data.difference[at, layer]), float(data.cosine[at, layer])
            shown = bar(float(lengths[at, layer]), box.longest(longest)) if np.isfinite(value) else ""
            role = "accent" if parts_here else "warning" if np.isinf(value) else "secondary" if not value > 0 else "text"
            line += [
                Segment("◆" if parts_here else " ", ink(box.palette, "accent", bold=True)),
                Segment(shown.ljust(longest), ink(box.palette, HUES[name])),
                Segment(amount(value, plain).rjust(NUMBER), ink(box.palette, role, bold=parts_here or layer == data.layer)),
                Segment(
                    (f"{together:.6f}" if np.isfinite(together) else "none").rjust(COSINE) if cosine else "", ink(box.palette, "secondary")
                ),
            ]
            line.append(Segment(" " * (part - 1 - longest - NUMBER - COSINE * cosine)))
        return line

    lines = layer_lines(data, box, cell)
    return [*lines, _foot(data, box)] if _has_foot(data, box) else lines


def _has_foot(data: LayersApartData, box: Box) -> bool:
    return box.height > data.layers


def _foot(data: LayersApartData, box: Box) -> Line:
    """The name of each part below its column."""
    left = gutter_width(data, box)
    part, longest, _ = _columns(box, max(0, box.width - left))
    names = [f"{name:>{1 + longest + NUMBER}}"[:part].ljust(part) for name in PARTS]
    return [Segment(" " * left), *(Segment(text, ink(box.palette, HUES[name])) for name, text in zip(PARTS, names))]


def pick(data: LayersApartData, box: Box, x: int, y: int) -> Selection:
    """The layer of the row."""
    rows = shown_layers(data, box)
    return Selection(layer=rows[y] if 0 <= y < len(rows) else None)
