"""Divergence: the text of two runs that are compared, coloured by how far apart their predictions of each token are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openmav.paint import Line, surprise
from openmav.panels import generated_text
from openmav.panels.base import Box
from openmav.panels.generated_text import TextData
from openmav.panels.widgets.layer_rows import message
from openmav.panels.widgets.layers_apart import NO_COMPARISON, amount
from openmav.record.comparison import divergence_of, flips
from openmav.view import Selection, View

TITLE = "Divergence"
NEEDS = ()
TOP = True
ROWS = 7
HELP = """\
What it shows: the text of A, which B read token by token, coloured by KL(A‖B), the divergence of the two predictions of each
token. An underlined token is a flip: the most likely token is another in B. The token under the cursor is reversed.

How to read it: each step of the legend is ten times the one before it; a cell holds the power of ten at which it begins, in nats.
Without colour the strongest are underlined and bold. Click on a token, or walk with the left and right keys: the other panels
show what both runs made of it.

Formula: KL(A‖B) = sum p_A (ln p_A - ln p_B) over the whole vocabulary, in fp64 from the fp32 logits, before any sampling.

Source: the logits of both models at the same position, after the same tokens.

What is normal: one model in bfloat16 and float32 differs by 0.0001 to 0.01 nats, a 4-bit quantisation by 0.01 to 0.5. A single
bright token is where B would have written something else.
"""
EDGES = tuple(10.0**power for power in range(-6, 1))  # nats at which the next step begins
ROOMY = 41  # cells from which on the legend has room for its unit
LABELS = (" 0", "⁻⁶", "⁻⁵", "⁻⁴", "⁻³", "⁻²", "⁻¹", " 1")


@dataclass(frozen=True)
class DivergenceData:
    empty: str | None  # why there is nothing to show; None where there is
    text: TextData  # its values are nats of surprisal that have the colours of the divergences; what it calls forced are flips
    divergence: float  # at the cursor; NaN where it is not known


def data(view: View) -> DivergenceData:
    text = generated_text.data(replace(view, modes={}, shown=frozenset(generated_text.SHOW_CANDIDATES)))
    steps = [view.steps[at] for at in range(text.first, text.first + len(text.texts))]
    known = [divergence_of(step) for step in steps]
    here = None if view.step is None else divergence_of(view.step)
    return DivergenceData(
        empty=NO_COMPARISON if view.step is not None and here is None else None,
        text=replace(
            text,
            mode="surprisal",
            full=0.0,  # its colours are powers of ten, which no bar could show
            values=_as_surprisal(np.array([np.nan if kl is None else kl for kl in known])),
            forced=tuple(flips(step) for step in steps),
            mode_note=("KL(A‖B)",),
        ),
        divergence=np.nan if here is None else here,
    )


def _as_surprisal(kl: NDArray[np.float64]) -> NDArray[np.float64]:
    """[tokens] the surprisals that have the colours of these divergences; NaN and infinity as they are."""
    steps = np.array((0.0, *surprise.EDGES))[np.searchsorted(EDGES, kl, side="right")]
    return np.where(np.isfinite(kl), steps, kl)


def legend(data: DivergenceData, box: Box) -> Line | None:
    unit = "nats, 10ⁿ" if box.width >= ROOMY else "10ⁿ"
    return surprise.legend(box.palette, unit, LABELS) if data.empty is None and data.text.has_token else None


def note(data: DivergenceData, box: Box) -> str:
    if data.empty is not None or not data.text.has_token:
        return ""
    return f"{generated_text.note(data.text, box)} · here {amount(data.divergence)} nats"


def render(data: DivergenceData, box: Box) -> list[Line]:
    return message(box, data.empty) if data.empty is not None else generated_text.render(data.text, box)


def pick(data: DivergenceData, box: Box, x: int, y: int) -> Selection | None:
    """The token that was clicked."""
    return None if data.empty is not None else generated_text.pick(data.text, box, x, y)
