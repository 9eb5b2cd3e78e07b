"""Differences from what the user pinned: the other numbers, and what they are of in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, fit, ink, number
from openmav.panels.base import Box
from openmav.panels.widgets.diverging import diverging_bar, signed
from openmav.record import Array
from openmav.view import View

DIFFERENT = "after different texts"


@dataclass(frozen=True)
class Difference:
    """What a measure of the shown token is compared with."""

    note: str  # "minus token 12 ·Paris", and what a reader must know of it
    values: Array | None  # of the pinned token, shaped as those of the shown one; None: there are none, `note` says why


def difference(view: View, measure: str) -> Difference | None:
    """None where nothing is pinned, or nothing is shown."""
    mine = view.values(measure)
    if view.pinned is None or mine is None:
        return None
    step = view.reference
    values = None if step is None else step.values.get(measure)
    if values is not None and values.shape != mine.shape:
        values = None
    return Difference(minus(view, captured=values is not None), values)


@dataclass(frozen=True)
class CellChanges:
    """The changes of cells as shares -1..1 of the largest, for a grid on the ramp around 0."""

    values: NDArray[np.float64]  # [layers, heads]
    shares: NDArray[np.float64]  # [layers, heads]
    most: float  # the largest magnitude


def cell_changes(values: Array, difference: Difference | None) -> CellChanges | None:
    """How [layers, heads] differ from the pinned ones; None where those are not known."""
    if difference is None or difference.values is None:
        return None
    changes = values.astype(np.float64) - difference.values
    most = float(np.abs(changes[np.isfinite(changes)]).max(initial=0.0))
    return CellChanges(changes, changes / (most or 1.0), most)


def minus(view: View, captured: bool = True) -> str:
    """What is subtracted, for the lower edge of a panel; "" where nothing is pinned."""
    if view.pinned is None:
        return ""
    if view.reference is None:
        return f"{view.pinned.name} has no token {view.cursor}"
    if not captured:
        return f"not captured for {view.pinned.name}"
    same = view.pinned.is_same_text(view.prompt, view.steps, view.cursor)
    return f"minus {view.pinned.name}" + ("" if same else f" · {DIFFERENT}")


def change_cell(box: Box, change: float, share: float, decimals: int, digits: int, width: int, *, bold: bool) -> Line:
    """A bar around 0 and the signed number in `width` cells; a flag where it is not finite."""
    style = ink(box.palette, "text", bold=bold)
    if not np.isfinite(change):
        return [Segment(fit("·", width, ">"), ink(box.palette, "secondary"))]
    text = signed(change, decimals)
    text = text.rjust(digits) if len(text) <= digits else number(change, decimals, digits)
    room = max(0, width - digits - 1)
    bar = diverging_bar(box.palette, share, room, box.max_bar_length)
    return [*bar, Segment(" " + text, style)] if room else [Segment(fit(text, width, ">"), style)]
