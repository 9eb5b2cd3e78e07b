"""Which tokens a prediction depends on: the result of one input attribution, frozen. It imports nothing.

The question is always the same: f is the raw logit of a token A at one place of the text, or A's minus B's; what has each token
before that place to do with f? Three methods answer it, and docs/attribution.md says how they differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openmav.record.step import Array

METHODS = ("gradient", "integrated", "occlusion")
COMPLETE = 0.01  # of the total: what the scores of "integrated" may miss it by


@dataclass(frozen=True)
class Explanation:
    """What a backend found: a score for each token that was read, and what it was computed with.

    `total` is what the scores should sum to, NaN for a method that promises no sum. `logits` [vocab] are those of the pass over the
    unchanged text, fp32, so that they can be compared with what was captured.
    """

    scores: Array  # [tokens]
    logits: Array  # [vocab]
    total: float
    passes: int  # texts that were run through the model
    reference: int  # the token that stands for "nothing here"; -1 where the method needs none


@dataclass(frozen=True, eq=False)
class InputAttribution:
    """Scores [tokens] of the tokens before `position`, in logits: what each has to do with the logit of A, or of A minus B.

    gradient: input times gradient, f to first order; integrated: integrated gradients from the reference token, which sum to `total`;
    occlusion: by how much f falls when the reference token stands in the token's place.
    """

    method: str
    index: int  # of the generated token that was asked about; 0 is the first
    position: int  # of that token in the whole sequence: as many tokens were read before it
    target_id: int
    target: str
    minus_id: int | None
    minus: str | None
    token_ids: tuple[int, ...]  # that were read, prompt included
    tokens: tuple[str, ...]  # their texts; joined they read as the text
    scores: Array  # [tokens]
    output: float  # f for the unchanged text
    total: float  # what the scores should sum to; NaN: nothing is promised
    drift: float  # how far the logits of this pass are from those that were captured, of the largest; NaN: none were
    drift_limit: float  # what rounding in the model's float type explains
    of_baseline: bool  # there are interventions on the run; this is of the model without them
    passes: int  # texts that were run through the model
    reference: str | None  # text of the token that stands for "nothing here"
    seconds: float
    unit: str = "logit"

    @property
    def sum(self) -> float:
        return float(self.scores.sum(dtype="float64"))

    @property
    def error(self) -> float:
        """By how much the scores miss their total, as a share of it; NaN where no sum is promised."""
        return relative(self.sum, self.total)

    @property
    def complete(self) -> bool:
        """False where a promised sum was not reached."""
        return not self.error > COMPLETE

    @property
    def of(self) -> tuple[int, int, int | None]:
        """What was asked: the place, A and B."""
        return self.index, self.target_id, self.minus_id


def relative(result: float, total: float) -> float:
    """|found - total| as a share of |total|; 0 of 0 is 0."""
    off = abs(result - total)
    return off / abs(total) if total else off if math.isnan(off) or off == 0 else float("inf")
