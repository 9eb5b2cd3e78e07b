"""The most likely tokens' logits beside each other, each in its parts: all of attention, all MLPs, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number_text, visible
from openmav.panels.base import Box
from openmav.panels.widgets.diverging import signed
from openmav.record import Step

TOKEN, NUMBER, LEAST_BAR = 14, 8, 6  # cells
COLUMNS = ("attn.", "MLP", "rest", "logit")
LEAST = TOKEN + len(COLUMNS) * NUMBER + LEAST_BAR  # cells; where there are fewer, it is not drawn
LEAST_ROWS = 5  # the same of rows: a blank one, the heading, and three tokens
DECIMALS = 2


@dataclass(frozen=True)
class Rival:
    """A token's logit and its parts, summed over layers; `rest` is what neither attention nor the MLPs add."""

    token: str
    is_chosen: bool
    attention: float
    mlp: float
    logit: float

    @property
    def rest(self) -> float:
        return self.logit - self.attention - self.mlp


def rivals_of(step: Step) -> tuple[Rival, ...]:
    """The tokens that were attributed, most likely first; none where a part of them is not known."""
    parts, ids, logits = (step.values.get(f"attribution.top{name}") for name in ("", ".token_ids", ".logit"))
    if parts is None or ids is None or logits is None or not (np.isfinite(parts).all() and np.isfinite(logits).all()):
        return ()
    sums = parts.astype(np.float64).sum(axis=0)
    rows = zip(ids.tolist(), *sums.tolist(), logits[0].tolist())
    return tuple(Rival(visible(step.pieces.get(one, f"#{one}")), one == step.token_id, *numbers) for one, *numbers in rows if one >= 0)


def rival_lines(rivals: Sequence[Rival], box: Box, width: int, rows: int) -> list[Line]:
    """At most `rows` lines of `width` cells: a blank one, the heading, and a token each; none where there is no room for three tokens."""
    if width < LEAST or rows < LEAST_ROWS or len(rivals) < LEAST_ROWS - 2:
        return []
    room = width - TOKEN - len(COLUMNS) * NUMBER
    quiet, most = ink(box.palette, "secondary"), max(0.0, *(rival.logit for rival in rivals))
    lines: list[Line] = [[], [Segment(f"{fit('the most likely', TOKEN + room)}{''.join(name.rjust(NUMBER) for name in COLUMNS)}", quiet)]]
    for rival in rivals[: rows - 2]:
        shown = bar(max(0.0, rival.logit) / (most or 1.0), box.longest(room - 1))
        role = "accent" if rival.is_chosen else "text"
        parts = "".join(signed(value, DECIMALS).rjust(NUMBER) for value in (rival.attention, rival.mlp, rival.rest))
        lines.append(
            [
                Segment(fit(rival.token, TOKEN - 1) + " ", ink(box.palette, role, bold=rival.is_chosen)),
                Segment(shown, ink(box.palette, "accent" if rival.is_chosen else "probability")),
                Segment(" " * (room - len(shown))),
                Segment(parts, quiet),
                Segment(number_text(rival.logit, DECIMALS).rjust(NUMBER), ink(box.palette, "text", bold=rival.is_chosen)),
            ]
        )
    return lines
