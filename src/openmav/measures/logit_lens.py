"""Logit lens: what the model would predict next if it ended after each layer.

"logit_lens" [layers, k] are the probabilities of the k most likely tokens of each layer, most likely first;
"logit_lens.token_ids" [layers, k] and "logit_lens.logits" [layers, k] say which and how strongly; "logit_lens.chosen" [layers]
is the probability of the token that was chosen. logits_l = unembed(final_norm(x_l)), x_l the residual stream after layer l,
through the model's own modules with its own scale, soft cap and bias; the last row is the model's own output.
Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.measures.base import Context, stacked

TITLE = "logit lens"
NEEDS = ("residual.after", "head.logits")
TOP = 10


def compute(frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32 and int64, all layers in one product; NaN and id -1 for a layer without a residual stream, and where the head can't be used."""
    rows = frame.sites["residual.after"]
    count = min(TOP, len(context.logits))
    probs = np.full((len(rows), count), np.nan, dtype=np.float32)
    logits, chosen = probs.copy(), probs[:, 0].copy()
    ids = np.full(probs.shape, -1, dtype=np.int64)
    stack, layers = stacked(rows)
    if stack is not None and frame.head is not None:
        predicted = frame.head.logits(stack).cpu()
        log_probs = predicted.log_softmax(-1)
        top = predicted.topk(count, dim=-1)
        ids[layers], logits[layers] = top.indices.numpy(), top.values.numpy()
        probs[layers] = log_probs.gather(-1, top.indices).exp().numpy()
        chosen[layers] = log_probs[:, context.token_id].exp().numpy()
    return {"logit_lens": probs, "logit_lens.token_ids": ids, "logit_lens.logits": logits, "logit_lens.chosen": chosen}
