"""Where the model looked when it generated the shown token: one head's attention row, or the mean over the heads of a layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmav.paint import one_line, percent
from openmav.panels.widgets.layer_rows import not_captured
from openmav.panels.widgets.sequence import token_at
from openmav.record import Array, ModelInfo
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
        mean, count = mean_row(rows, view.layer, view.info), heads_of(rows, view.layer, view.info)
        if mean is not None:
            words = f"mean of {count} heads" if count > 1 else "its one head"
            return _described(view, mean, f"attention of layer {view.layer}", words)
    return Attended(None, (f"no attention of layer {max(view.layer, 0)}", _why(view)))


def heads_of(rows: Array, layer: int, info: ModelInfo | None) -> int:
    """How many of the heads in `rows` [layers, heads, ...] the layer has: the others are those of other layers."""
    counts = info.layer_heads if info else ()
    return counts[layer] if layer < len(counts) else rows.shape[1]


def mean_row(rows: Array, layer: int, info: ModelInfo | None) -> NDArray[np.float64] | None:
    """[layers, heads, tokens] -> [tokens], the mean over the heads that the layer has; None where it has none, or NaN in one."""
    heads = rows[layer, : heads_of(rows, layer, info)]
    return heads.astype(np.float64).mean(axis=0) if len(heads) and np.isfinite(heads).all() else None


def _described(view: View, row: NDArray[np.float64], *what: str) -> Attended:
    """The row with what it is, what the first token takes, and the tokens that take most of the rest."""
    strongest = [int(at) + 1 for at in np.argsort(-row[1:], kind="stable")[:STRONGEST] if row[at + 1] > 0]
    names = ", ".join(f"{token_at(view, at)} {percent(float(row[at])).strip()}" for at in strongest)
    return Attended(row, (*what, f"first token {percent(float(row[0])).strip()}", *([f"then {names}"] if names else [])))


def _why(view: View) -> str:
    why = view.why_missing(MEASURE, max(view.layer, 0))
    if view.values(MEASURE) is not None:
        return one_line(why or "NaN or infinity in a head")
    return one_line(why or not_captured(view, MEASURE))
