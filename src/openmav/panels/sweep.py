"""Sweep: each head, sub-block or layer ablated alone, and how the logit of one token changes, as a map that fills while it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmav.paint import Line, visible
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.difference import change_cell
from openmav.panels.widgets.diverging import signed, signed_shares
from openmav.panels.widgets.heat_grid import Columns, condensed, fitting
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    missing_of,
    nothing_to_show,
    shown_layers,
    why_no_layers,
)
from openmav.record import Array
from openmav.record.sweep_map import SweepMap
from openmav.settings.interventions import How
from openmav.settings.sites import SWEPT_NAMES, Swept
from openmav.view import Selection, View

TITLE = "Sweep"
NEEDS = ()
HELP = """\
What it shows: one row a layer, one column a head: how the logit of one token changes where that head alone adds nothing, or
its mean over the text before the token. Where the attention, the MLP or all of a layer is ablated, a row has one bar. The
command palette starts it ("sweep") for the token under the cursor; cells fill while it is computed, escape stops it. Of
several sweeps it shows the one of the token under the cursor, or the last.

How to read it: blue heads raise the token's logit (without them it falls), orange ones lower it, and most do nothing. The
lower edge names the strongest one. A click or the keys [ ] and { } select a layer and head, and the key a begins
with ablating the selected head in the run itself.

Formula: change = logit of the token with the head's output set to 0, minus its logit in the unchanged model, in logits, at
the place where the token was chosen; the raw logits, before sampling. Colours are scaled to the largest change in sight.

Source: a forward pass over the text before the token for each head, several in one batch, in runs of their own: the text,
its cache and its random numbers stay as they are. Michel et al., "Are Sixteen Heads Really Better than One?" (2019).

What is normal: a handful of heads with changes of one logit or more, many near 0. Heads can stand in for each other, so that
a small change does not prove that a head is of no use.
"""
DIGITS = 7  # cells of the number of a site that has a row of its own
NUMBERED = 7  # cells of a head from which on its number is written in it
NO_SWEEP = "no sweep yet: ctrl+p, then sweep"


@dataclass(frozen=True, kw_only=True)
class SweepData(LayerData):
    changes: Array | None  # [layers, sites], logits
    known: NDArray[np.bool_] | None  # [layers, sites]
    what: Swept = "heads"
    how: How = "zero"
    head: int  # the selected one
    token: str = ""
    index: int = -1  # of the token
    total: int = 0
    stopped: bool = False
    of_baseline: bool = False


def data(view: View) -> SweepData:
    sweep, none = _shown(view), why_no_layers(view)
    fits = sweep is not None and len(sweep.changes) == view.layers
    empty = none if none is not None else None if fits else NO_SWEEP
    if sweep is None or not fits:
        return SweepData(empty=empty, layers=view.layers, layer=view.layer, changes=None, known=None, head=view.head)
    return SweepData(
        empty=empty,
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, "attention_entropy"),
        changes=sweep.changes,
        known=sweep.known,
        head=view.head,
        token=visible(sweep.token),
        index=sweep.index,
        total=sweep.total,
        stopped=sweep.stopped,
        of_baseline=sweep.of_baseline,
        what=sweep.what,
        how=sweep.how,
    )


def _shown(view: View) -> SweepMap | None:
    """The last sweep for the shown token; where there is none, or one is under way, the last of all."""
    last, step = view.sweep, view.step
    if last is None or last.under_way or step is None:
        return last
    here = [one for one in view.sweeps if (one.branch, one.index, one.token_id) == (view.branch, step.index, step.token_id)]
    return last if not here or (last.branch, last.index) == (view.branch, step.index) else here[-1]


def _columns(data: SweepData, box: Box) -> Columns:
    heads = 0 if data.changes is None else data.changes.shape[1]
    return condensed(heads, max(0, box.width - gutter_width(data, box)), most=NUMBERED)


def heading(data: SweepData, box: Box) -> str:
    if data.changes is None:
        return TITLE
    where, title = f"{data.token} at token {data.index}", f"{TITLE} of {SWEPT_NAMES[data.what]}"
    way = "set to its mean" if data.how == "mean" else "ablated"
    return fitting([f"{title}: change of the logit of {where}, each {way} alone", f"{title} · {where}", title, TITLE], box.width)


def legend(data: SweepData, box: Box) -> Line | None:
    if data.empty is not None or data.changes is None:
        return None
    top = float(np.abs(data.changes[np.isfinite(data.changes)]).max(initial=0.0))
    return heat_grid.legend(box.palette, -top, top, "logits", diverging=True) if top > 0 else None


def note(data: SweepData, box: Box) -> str:
    changes, known = data.changes, data.known
    if data.empty is not None or changes is None or known is None:
        return ""
    done = int(known.sum())
    parts = [
        "" if done == data.total else f"{'stopped at' if data.stopped else 'computing'} {done} of {data.total} {SWEPT_NAMES[data.what]}"
    ]
    if done:
        layer, head = np.unravel_index(int(np.argmax(np.where(known, np.abs(np.nan_to_num(changes)), -1))), changes.shape)
        parts.append(f"strongest: {_site(data, int(layer), int(head))} {signed(float(changes[layer, head]), 2)}")
    column = data.head if data.what == "heads" else 0
    if 0 <= data.layer < len(known) and column < known.shape[1] and known[data.layer, column]:
        parts.append(f"{_site(data, data.layer, column)} {signed(float(changes[data.layer, column]), 2)}")
    together = _columns(data, box).note("heads") if data.what == "heads" else ""
    parts += ["without the interventions"] * data.of_baseline + [together, hidden_note(data, box)]
    return " · ".join(part for part in parts if part)


def _site(data: SweepData, layer: int, head: int) -> str:
    return f"L{layer}" + {"heads": f".H{head}", "layers": ""}.get(data.what, f".{data.what}")


def render(data: SweepData, box: Box) -> list[Line]:
    changes, known, columns = data.changes, data.known, _columns(data, box)
    instead = nothing_to_show(box, data.empty, gutter_width(data, box) + 1)
    if instead is not None:
        return instead
    if changes is None or known is None:
        return []
    reach = signed_shares(np.where(known, changes, 0.0), box.scale)
    cells = np.where(known, np.where(np.isfinite(changes), reach, np.inf), np.nan)

    def cell(layer: int, width: int) -> Line:
        if data.what != "heads":
            change = float(changes[layer, 0]) if known[layer, 0] else np.nan
            return change_cell(box, change, float(reach[layer, 0]), 2, DIGITS, width, bold=layer == data.layer)
        shares = [_share(part) for part in _parts(cells[layer], columns)]
        marked = columns.cell(data.head) if layer == data.layer else -1
        if columns.wide == NUMBERED:
            return [
                heat_grid.text_cell(box.palette, _text(changes, known, layer, at), share, NUMBERED, at == marked, diverging=True)
                for at, share in enumerate(shares)
            ]
        return heat_grid.heat_line(box.palette, shares, columns.wide, marked, diverging=True)

    return layer_lines(data, box, cell)


def _text(changes: Array, known: NDArray[np.bool_], layer: int, head: int) -> str:
    return f"{signed(float(changes[layer, head]), 2):>6}" if known[layer, head] else "·".center(NUMBERED)


def _parts(row: NDArray[np.float64], columns: Columns) -> list[NDArray[np.float64]]:
    return [row[at : at + columns.together] for at in range(0, len(row), columns.together)]


def _share(part: NDArray[np.float64]) -> float | None:
    """The mean of the heads of a cell that are known; None where none is."""
    there = part[~np.isnan(part)]
    return float(there.mean()) if len(there) else None


def pick(data: SweepData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row, and the head of the cell."""
    rows = shown_layers(data, box)
    if data.empty is not None or not 0 <= y < len(rows):
        return None
    if data.what != "heads":
        return Selection(layer=rows[y])
    return Selection(layer=rows[y], head=_columns(data, box).column(x - gutter_width(data, box)) if x >= gutter_width(data, box) else None)
