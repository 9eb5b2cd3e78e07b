"""What the text is coloured by: a step of the tint for each token, by surprisal, by entropy or by one head's attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openmav.paint import one_line, percent
from openmav.panels._sequence import prompt_length
from openmav.panels._view import View

KINDS = ("surprisal", "entropy", "attention")
TINTS = 8
BAD = -1  # not a number


def mode_of(view: View) -> str:
    return view.mode("generated_text", KINDS)


def row_of_head(view: View) -> Sequence[float] | None:
    """The attention of the selected head to each token that the model had read; None where it was not captured or there is none."""
    rows = view.values("attention_rows")
    if rows is None or not (0 <= view.layer < rows.shape[0] and view.head < rows.shape[1]):
        return None
    row = rows[view.layer, view.head]
    return row.tolist() if np.isfinite(row).all() else None


class Tints:
    """Steps 0 (the ground) to TINTS - 1 for the tokens of a view; computed once a drawing. Tokens of the prompt count from below -1 up."""

    def __init__(self, view: View) -> None:
        self._view, self.mode = view, mode_of(view)
        self._prompt = prompt_length(view)
        self._row = row_of_head(view) if self.mode == "attention" else None
        self._most = max(self._row[1:], default=0.0) if self._row else 0.0

    def __getitem__(self, token: int) -> int:
        """The step of a generated token (0 and up), or of the prompt's (-1 is its last)."""
        if self.mode == "attention":
            return self._attended(token + self._prompt)
        if token < 0:
            return 0
        step = self._view.steps[token]
        nats = step.surprisal if self.mode == "surprisal" else step.entropy
        return min(int(nats), TINTS - 1) if math.isfinite(nats) else BAD

    def _attended(self, position: int) -> int:
        """By the share of the most that goes to any token but the first."""
        if self._row is None or not 0 <= position < len(self._row) or self._most <= 0:
            return 0
        return min(int(self._row[position] / self._most * TINTS), TINTS - 1)


def said(view: View) -> list[str]:
    """What the colours mean, in parts."""
    mode = mode_of(view)
    by = f"{'coloured' if view.palette.color else 'marked'} by {mode}"
    if mode != "attention":
        return [by]
    row = row_of_head(view)
    if row is None:
        why = view.why_missing("attention_rows", max(view.layer, 0))
        dropped = view.step is not None and "attention_rows" in view.step.dropped
        why = why or ("no longer kept for this token" if dropped else "not captured for this token")
        return [f"no attention of layer {max(view.layer, 0)} head {view.head}: {one_line(why)}"]
    return [f"{by} of layer {view.layer} head {view.head}", f"first token {percent(row[0]).strip()}"]
