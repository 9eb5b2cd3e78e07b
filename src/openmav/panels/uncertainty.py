"""Uncertainty: entropy and surprisal of every token as two sparklines on one scale, one above the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, fit, ink, number, number_text, surprise, visible
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import Columns, fitting, windowed
from openmav.panels.widgets.layer_rows import message, too_narrow, why_no_step
from openmav.panels.widgets.sequence import tokens_in_sight
from openmav.panels.widgets.sparkline import roomy, spark_lines
from openmav.view import Selection, View

TITLE = "Uncertainty"
NEEDS = ()
ROWS = 12
MORE = 18
HELP = """\
What it shows: two rows of columns, one column for each generated token, the oldest on the left: above the entropy, how
unsure the model was before it chose; below the surprisal, how unlikely the chosen token was. The numbers on the right are
those of the token under the cursor, whose column the frame points at (▼ ▲).

How to read it: both rows have the same scale, and the colours of the text and of the timeline, so they can be compared.
High entropy and low surprisal: many ways to go on, and a common one was taken. Low entropy and high surprisal: the model
was sure, and something else was chosen, by sampling or by you. Both low: the text could hardly go on in another way. Walk
with the left and right keys, or click.

Formula: entropy = -sum p ln p over the whole vocabulary; surprisal = -ln p of the chosen token; both in nats, of the raw
distribution p = softmax(logits), before any change by sampling.

Source: Shannon, "A Mathematical Theory of Communication" (1948); the model's own logits.

What is normal: entropies of 1 to 4 nats in running text, near 0 inside words. Sampled at temperature 1 without filters,
surprisal is entropy on average; greedy text stays far below it.
"""
LABEL, DIGITS = 10, 7
SHORT = {"entropy": "H", "surprisal": "S"}  # where the column is too narrow for the words
LEAST = 12  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class UncertaintyData:
    empty: str | None  # why there is nothing to show; None where there is
    entropy: NDArray[np.float64]  # [tokens], nats, from token `first` on
    surprisal: NDArray[np.float64]  # [tokens], nats
    first: int
    tokens: int  # all generated tokens, of which those above can be in sight
    cursor: int
    token: str  # under the cursor


def data(view: View) -> UncertaintyData:
    sight = tokens_in_sight(view)
    return UncertaintyData(
        empty=why_no_step(view),
        entropy=np.array([view.steps[at].entropy for at in sight], dtype=np.float64),
        surprisal=np.array([view.steps[at].surprisal for at in sight], dtype=np.float64),
        first=sight.start,
        tokens=len(view.steps),
        cursor=view.cursor,
        token=visible(view.step.token) if view.step is not None else "",
    )


def _columns(data: UncertaintyData, box: Box) -> Columns:
    width = max(1, box.width - _label(box) - DIGITS)
    return windowed(data.tokens, width, roomy(data.tokens, width), data.cursor)


def _label(box: Box) -> int:
    """Characters of the names: whole words where there is space."""
    return LABEL if box.width >= 36 else 2


def heading(data: UncertaintyData, box: Box) -> str:
    return fitting(["Uncertainty · entropy and surprisal, nats", "Uncertainty · H, S in nats", "Uncertainty"], box.width)


def legend(data: UncertaintyData, box: Box) -> Line | None:
    return surprise.legend(box.palette) if box.palette.color and data.empty is None and box.width >= 60 else None


def _mean(values: NDArray[np.float64]) -> str:
    return number_text(sum(values.tolist()) / len(values), 2)


def note(data: UncertaintyData, box: Box) -> str:
    if data.empty is not None:
        return ""
    columns = _columns(data, box)
    means = " and ".join(_mean(_shown(data, values, columns)) for values in (data.entropy, data.surprisal))
    parts = (columns.note("tokens", box.width < 48), f"token {data.cursor} {data.token}", f"mean {means}")
    return " · ".join(part for part in parts if part)


def pointer(data: UncertaintyData, box: Box) -> int | None:
    if data.empty is not None or box.width < LEAST or box.height < 2:
        return None
    columns = _columns(data, box)
    at = columns.cell(data.cursor)
    return None if at < 0 else _label(box) + at * columns.wide


def _shown(data: UncertaintyData, values: NDArray[np.float64], columns: Columns) -> NDArray[np.float64]:
    return values[columns.shown.start - data.first : columns.shown.stop - data.first]


def render(data: UncertaintyData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    if box.width < LEAST:
        return too_narrow(box)
    at = data.cursor - data.first
    now = (float(data.entropy[at]), float(data.surprisal[at]))
    if box.height < 2:
        text = f"entropy {number_text(now[0], 2)}  surprisal {number_text(now[1], 2)}"
        return [[Segment(fit(text, box.width), ink(box.palette, "text"))]][: max(box.height, 0)]
    columns = _columns(data, box)
    both = [_shown(data, values, columns).tolist() for values in (data.entropy, data.surprisal)]
    top = max((value for values in both for value in values if math.isfinite(value)), default=0.0)
    lines: list[Line] = []
    for which, name in enumerate(("entropy", "surprisal")):
        rows = max(1, (box.height + (which == 0)) // 2)
        scaled = spark_lines(box.palette, [*both[which], top], rows, None, columns.cell(data.cursor), box.scale, columns.wide)
        shown = [_without_last(row, columns.wide) for row in scaled]
        scale = f"{top:.1f} " if rows > 1 and _label(box) == LABEL else ""
        lines += [_framed(box, name, now[which], row, at == rows - 1, scale if at == 0 else "") for at, row in enumerate(shown)]
    return lines[: max(box.height, 0)]


def _without_last(row: Line, wide: int) -> Line:
    """The row without the column that only sets the scale."""
    last = row[-1]
    return [*row[:-1], Segment(last.text[:-wide], last.style)]


def _framed(box: Box, name: str, value: float, row: Line, base: bool, scale: str) -> Line:
    """A row of the sparkline; its name and the number stand beside the lowest one, the nats of its height beside the highest."""
    width = _label(box)
    label = fit(name if width == LABEL else SHORT[name], width) if base else scale.rjust(width)
    used = sum(len(segment.text) for segment in row)
    gap = " " * max(0, box.width - len(label) - used - DIGITS)
    text = number(value, 2, DIGITS) if base else ""
    good = "text" if math.isfinite(value) else "warning"
    return [Segment(label, ink(box.palette, "secondary")), *row, Segment(gap), Segment(text, ink(box.palette, good, bold=True))]


def pick(data: UncertaintyData, box: Box, x: int, y: int) -> Selection | None:
    """The token whose column was clicked."""
    label = _label(box)
    return Selection(step=_columns(data, box).column(x - label)) if x >= label else None
