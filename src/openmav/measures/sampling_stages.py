"""Sampling stages: what each stage of the sampling chain leaves of the next-token distribution.

"sampling_stages" [7, 5], a row for each of record.SAMPLING_STAGES, in their order (raw, constraint, penalty, temperature, top-k,
top-p, min-p). Columns: on (1, or 0 for a stage that is off and leaves all as it was); survivors (tokens with a probability above
0); kept (the probability, by the distribution that the stage was given, of the tokens that it kept); entropy after it, nats;
probability of the chosen token after it. "sampling_stages.settings" [7] is what each stage was set to (1 for raw and constraint);
temperature 0 is greedy: nothing is drawn, the largest score is taken.
Source: transformers' logits processors; Holtzman et al., "The Curious Case of Neural Text Degeneration" (2019), for top-p.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openmav.backends._base import Frame
from openmav.measures._base import Context
from openmav.record import SAMPLING_STAGES

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "sampling stages"
NEEDS = ()


def compute(_frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32, summed in fp64; NaN from logits that are NaN."""
    import torch

    scores = {stage.name: stage.scores for stage in context.stages}
    probs = torch.softmax(context.logits.double(), dim=-1)
    rows = [_row(probs, probs, context.token_id)]
    for name in SAMPLING_STAGES[1:]:
        if name in scores:
            before, probs = probs, torch.softmax(scores[name].double(), dim=-1)
            rows.append(_row(before, probs, context.token_id))
        else:  # the probability that is still there, all of it kept
            _, survivors, _, *after = rows[-1]
            rows.append([0.0, survivors, rows[-1][2] if rows[-1][0] == 0 else _sum(probs), *after])
    chosen = context.sampling
    settings = [1.0, 1.0, chosen.repetition_penalty, chosen.temperature, chosen.top_k, chosen.top_p, chosen.min_p]
    return {"sampling_stages": np.array(rows), "sampling_stages.settings": np.array(settings, dtype=np.float32)}


def _row(before: Tensor, after: Tensor, token_id: int) -> list[float]:
    import torch

    kept = ~(after <= 0)  # NaN is kept, so that it shows
    entropy = torch.special.entr(after).sum()
    return [1.0, float(kept.sum()), _sum(before[kept]), float(entropy), float(after[token_id])]


def _sum(probs: Tensor) -> float:
    return float(probs.sum())
