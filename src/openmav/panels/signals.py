"""Signals: entropy and surprisal of every token as two sparklines on one scale, one above the other."""

from __future__ import annotations

import math

from rich.segment import Segment

from openmav.paint import Line, fit, ink, number, number_text, visible
from openmav.panels._grid import Columns, fitting, windowed
from openmav.panels._layers import too_narrow, waiting
from openmav.panels._spark import roomy, spark_lines
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Signals"
NEEDS = ()
ROWS = 8
HELP = """\
What it shows: two rows of columns, one column for each generated token, the oldest on the left: above the entropy, how
unsure the model was before it chose; below the surprisal, how unlikely the chosen token was. The numbers on the right are
those of the token under the cursor, whose column is amber.

How to read it: both rows have the same scale, so they can be compared. High entropy and low surprisal: many ways to go on,
and a common one was taken. Low entropy and high surprisal: the model was sure, and something else was chosen, by sampling
or by you. Both low: the text could hardly go on in another way. Walk with the left and right keys, or click.

Formula: entropy = -sum p ln p over the whole vocabulary; surprisal = -ln p of the chosen token; both in nats, of the raw
distribution p = softmax(logits), before any change by sampling.

Source: Shannon, "A Mathematical Theory of Communication" (1948); the model's own logits.

What is normal: entropies of 1 to 4 nats in running text, near 0 inside words. Sampled at temperature 1 without filters,
surprisal is entropy on average; greedy text stays far below it.
"""
LABEL, DIGITS = 10, 7
SHORT = {"entropy": "H", "surprisal": "S"}  # where there is no room for the words
HUES = ("entropy", "probability")
LEAST = 12  # cells; where there are fewer, numbers would have to be cut


def _columns(view: View, width: int) -> Columns:
    room = max(1, width - _label(width) - DIGITS)
    return windowed(len(view.steps), room, roomy(len(view.steps), room), view.cursor)


def _label(width: int) -> int:
    """Characters of the names: whole words where there is room."""
    return LABEL if width >= 36 else 2


def heading(view: View, width: int) -> str:
    return fitting(["Signals · entropy and surprisal, nats", "Signals · H, S in nats", "Signals"], width)


def _mean(values: list[float]) -> str:
    return number_text(sum(values) / len(values), 2)


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    shown = [view.steps[at] for at in _columns(view, width).shown]
    short = width < 48
    means = f"mean {_mean([step.entropy for step in shown])} and {_mean([step.surprisal for step in shown])}"
    parts = (_columns(view, width).note("tokens", short), f"token {view.cursor} {visible(view.step.token)}", means)
    return " · ".join(part for part in parts if part)


def _signals(step: Step) -> tuple[float, float]:
    return step.entropy, step.surprisal


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None:
        return waiting(view, width)
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    if height < 2:
        text = f"entropy {number_text(view.step.entropy, 2)}  surprisal {number_text(view.step.surprisal, 2)}"
        return [[Segment(fit(text, width), ink(view.palette, "text"))]][: max(height, 0)]
    window = _columns(view, width)
    both = [_signals(view.steps[at]) for at in window.shown]
    top = max((value for pair in both for value in pair if math.isfinite(value)), default=0.0)
    lines: list[Line] = []
    for which, (name, hue) in enumerate(zip(("entropy", "surprisal"), HUES)):
        rows = max(1, (height + (which == 0)) // 2)
        values = [pair[which] for pair in both]
        scaled = spark_lines(view.palette, [*values, top], rows, hue, window.cell(view.cursor), view.options.scale, window.wide)
        value, shown = _signals(view.step)[which], [_without_last(row, window.wide) for row in scaled]
        lines += [_framed(view, name, value, row, width, at == rows - 1) for at, row in enumerate(shown)]
    return lines[: max(height, 0)]


def _without_last(row: Line, wide: int) -> Line:
    """The row without the column that only sets the scale."""
    last = row[-1]
    return [*row[:-1], Segment(last.text[:-wide], last.style)]


def _framed(view: View, name: str, value: float, row: Line, width: int, base: bool) -> Line:
    """A row of the sparkline; its name and the number stand beside the lowest one."""
    label = fit(name if _label(width) == LABEL else SHORT[name], _label(width)) if base else " " * _label(width)
    used = sum(len(segment.text) for segment in row)
    gap = " " * max(0, width - len(label) - used - DIGITS)
    text = number(value, 2, DIGITS) if base else ""
    good = "text" if math.isfinite(value) else "warning"
    return [Segment(label, ink(view.palette, "secondary")), *row, Segment(gap), Segment(text, ink(view.palette, good, bold=True))]


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The token whose column was clicked."""
    index = _columns(view, width).column(x - _label(width)) if x >= _label(width) else None
    return view if index is None else view.at_step(index)
