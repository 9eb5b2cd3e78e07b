"""Sampling stages: what each stage of the sampling chain leaves of the next-token distribution.

"sampling_stages" [25, 5], a row for each of record.SAMPLING_STAGES, in their order: raw, constraint, the repetition penalty,
temperature, top-k, top-p, min-p, and among them the stages that a model's generation config can add. Columns: on (1, or 0 for a stage
that is off and changes nothing); survivors (tokens with a probability above 0); kept (the probability of the tokens that the stage
kept, in the distribution before it); entropy after it, nats; probability of the chosen token after it.
"sampling_stages.settings" [25] is the setting of each stage: 1 for raw and constraint, the number of tokens for a list of them, 0
for a stage of the model's that is off; temperature 0 is greedy: nothing is sampled, the token with the largest score is chosen.
Source: transformers' logits processors; Holtzman et al., "The Curious Case of Neural Text Degeneration" (2019), for top-p.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame, Numbers
from openmav.measures.base import Context, array_of
from openmav.record import SAMPLING_STAGES
from openmav.settings.sampling import Sampling

TITLE = "sampling stages"
NEEDS = ()


def compute(_frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32, summed in fp64; NaN from logits that are NaN."""
    scores = {stage.name: stage.scores for stage in context.stages}
    probs = softmax(context.logits)
    rows = [_row(probs, probs, context.token_id)]
    for name in SAMPLING_STAGES[1:]:
        if name in scores:
            before, probs = probs, softmax(scores[name])
            rows.append(_row(before, probs, context.token_id))
        else:  # an inactive stage keeps all of the probability
            _, survivors, _, *after = rows[-1]
            rows.append([0.0, survivors, rows[-1][2] if rows[-1][0] == 0 else _sum(probs), *after])
    settings = settings_of(context.sampling)
    numbers = [settings.get(name, 0.0) for name in SAMPLING_STAGES]
    return {"sampling_stages": np.array(rows), "sampling_stages.settings": np.array(numbers, dtype=np.float32)}


def settings_of(sampling: Sampling) -> dict[str, float]:
    """The settings of the stages, by name."""
    return {
        "raw": 1.0,
        "constraint": 1.0,
        "penalty": sampling.repetition_penalty,
        "temperature": sampling.temperature,
        "top-k": sampling.top_k,
        "top-p": sampling.top_p,
        "min-p": sampling.min_p,
        **dict(sampling.stages),
    }


def softmax(scores: Numbers) -> NDArray[np.float64]:
    """[vocab] fp64."""
    numbers = array_of(scores).astype(np.float64)
    with np.errstate(invalid="ignore"):
        numbers -= numbers.max()
    np.exp(numbers, out=numbers)
    numbers /= numbers.sum()
    return numbers


def _row(before: NDArray[np.float64], after: NDArray[np.float64], token_id: int) -> list[float]:
    kept = ~(after <= 0)  # NaN is kept, so that it shows
    present = after[kept]
    entropy = -(present * np.log(present)).sum()
    return [1.0, float(kept.sum()), _sum(before[kept]), float(entropy), float(after[token_id])]


def _sum(probs: NDArray[np.float64]) -> float:
    return float(probs.sum())
