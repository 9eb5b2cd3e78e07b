"""Logit lens: what the model would predict next if it ended after each layer.

"logit_lens" [layers, k] are the probabilities of the k most likely tokens of each layer, most likely first;
"logit_lens.token_ids" [layers, k] and "logit_lens.logits" [layers, k] say which and how strongly; "logit_lens.chosen" [layers]
is the probability of the token that was chosen. logits_l = unembed(final_norm(x_l)), x_l the residual stream after layer l,
through the model's own modules with its own scale, soft cap and bias; the last row is the model's own output.
Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.backends.shared.largest import most_likely
from openmav.measures.base import Context, stacked

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "logit lens"
NEEDS = ("residual.after", "head.logits")
TOP = 10


def compute(frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32 and int64, all layers in one product; NaN and id -1 for a layer without a residual stream, and where the head can't be used."""
    rows = frame.rows("residual.after")
    count = min(TOP, len(context.logits))
    probs = np.full((len(rows), count), np.nan, dtype=np.float32)
    logits, chosen = probs.copy(), probs[:, 0].copy()
    ids = np.full(probs.shape, -1, dtype=np.int64)
    stack, layers = stacked(rows)
    if stack is not None and frame.head is not None:
        predicted: Any = frame.head.logits(stack)
        of = _of_arrays if isinstance(predicted, np.ndarray) else _of_tensors
        ids[layers], logits[layers], probs[layers], chosen[layers] = of(predicted, count, context.token_id)
    return {"logit_lens": probs, "logit_lens.token_ids": ids, "logit_lens.logits": logits, "logit_lens.chosen": chosen}


def _of_tensors(predicted: Tensor, count: int, token_id: int) -> tuple[NDArray, ...]:
    """[n, vocab] -> the ids, logits and probabilities of the most likely [n, count], and the probability of the token [n]."""
    predicted = predicted.cpu()
    log_probs = predicted.log_softmax(-1)
    top = predicted.topk(count, dim=-1)
    likely = log_probs.gather(-1, top.indices).exp()
    return top.indices.numpy(), top.values.numpy(), likely.numpy(), log_probs[:, token_id].exp().numpy()


def _of_arrays(predicted: NDArray[np.float32], count: int, token_id: int) -> tuple[NDArray, ...]:
    """The same of arrays, row by row, so that each is in the processor's cache until it is done with."""
    ids = np.stack([most_likely(row, count) for row in predicted])
    logits = np.take_along_axis(predicted, ids, axis=-1)
    largest = logits[:, :1]
    totals = np.array([np.exp(row - most).sum() for row, most in zip(predicted, largest)])
    probs = np.exp(logits - largest) / totals[:, None]
    return ids, logits, probs, np.exp(predicted[:, token_id] - largest[:, 0]) / totals
