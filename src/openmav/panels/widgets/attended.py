"""Where the model looked when it generated the shown token: one head's attention row, or the mean over the heads of a layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmav.paint import one_line, percent
from openmav.panels.widgets.sequence import token_at
from openmav.record import Array
from openmav.view import View

MEASURE = "attention_rows"
STRONGEST = 3  # tokens that are named


class Attended(NamedTuple):
    """The attention to each token that the model had read, and what to say of it; None where there is none, and why."""

    row: NDArray[np.float64] | None
    note: tuple[str, ...]


def of_head(view: View) -> Attended:
    """The selected head's row."""
    rows = view.values(MEASURE)
    if rows is not None and 0 <= view.layer < rows.shape[0] and view.head < rows.shape[1]:
        row = rows[view.layer, view.head].astype(np.float64)
        if np.isfinite(row).all():
            return _described(view, row, f"attention of layer {view.layer} head {view.head}")
    return Attended(None, (f"no attention of layer {max(view.layer, 0)} head {view.head}", _why(view)))


def of_layer(view: View) -> Attended:
    """The mean over all heads that the selected layer has."""
    rows = view.values(MEASURE)
    if rows is not None and 0 <= view.layer < rows.shape[0]:
        heads = _heads(view, rows)
        if len(heads) and np.isfinite(heads).all():
            words = f"mean of {len(heads)} heads" if len(heads) > 1 else "its one head"
            return _described(view, heads.astype(np.float64).mean(axis=0), f"attention of layer {view.layer}", words)
    return Attended(None, (f"no attention of layer {max(view.layer, 0)}", _why(view)))


def _heads(view: View, rows: Array) -> Array:
    """The rows of the selected layer, without those of heads that only other layers have."""
    counts = view.info.layer_heads if view.info else ()
    return rows[view.layer, : counts[view.layer]] if view.layer < len(counts) else rows[view.layer]


def _described(view: View, row: NDArray[np.float64], *what: str) -> Attended:
    """The row with what it is, what the first token takes, and the tokens that take most of the rest."""
    strongest = [int(at) + 1 for at in np.argsort(-row[1:], kind="stable")[:STRONGEST] if row[at + 1] > 0]
    names = ", ".join(f"{token_at(view, at)} {percent(float(row[at])).strip()}" for at in strongest)
    return Attended(row, (*what, f"first token {percent(float(row[0])).strip()}", *([f"then {names}"] if names else [])))


def _why(view: View) -> str:
    dropped = view.step is not None and MEASURE in view.step.dropped
    why = view.why_missing(MEASURE, max(view.layer, 0))
    if view.values(MEASURE) is not None:
        return one_line(why or "NaN or infinity in a head")
    return one_line(why or ("no longer kept for this token" if dropped else "not captured for this token"))
