"""Neuron tokens: the tokens whose logits each layer's strongest neurons raise and lower most.

"neuron_tokens" [m, k, 2, n], in logits: what the k strongest neurons of a layer (those of "neurons", in its order) add to the
logits of n tokens each, first the tokens that they raise most, then those that they lower most; "neuron_tokens.token_ids"
[m, k, 2, n] says which, -1 where there are fewer; "neuron_tokens.layers" [m] says which layers these are. A neuron adds
activation * (its column of the MLP's last linear map) to the residual stream, and that times the final norm's scale, held at
its value here, and the head's rows is what it adds to each logit. Each neuron that is not cached yet costs a
product with the whole head: where a layer is selected, only that one is computed.
Source: Geva et al., "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.measures import neurons
from openmav.measures.base import Context, array_of

TITLE = "neuron tokens"
NEEDS = ("mlp.hidden", "residual.after", "head.neurons")
TOKENS = 6


def compute(frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32 and int64; a layer without such neurons, or whose neurons do not reach the head linearly, is left out."""
    rows = [row if context.layer in (None, layer) else None for layer, row in enumerate(frame.rows("mlp.hidden"))]
    strongest = neurons.compute(frame, context)["neurons.ids"]
    count = min(TOKENS, len(context.logits))
    layers: list[int] = []
    logits = np.zeros((len(rows), strongest.shape[1], 2, count), dtype=np.float32)
    ids = np.full(logits.shape, -1, dtype=np.int64)
    last = frame.last_row
    for layer, hidden in enumerate(rows):
        if hidden is None or last is None or frame.head is None:
            continue
        chosen = [int(i) for i in strongest[layer] if i >= 0]
        tokens = frame.head.neuron_tokens(layer, chosen, hidden, last, count)
        if tokens is not None:
            ids[len(layers), : len(chosen)], logits[len(layers), : len(chosen)] = array_of(tokens[0]), array_of(tokens[1])
            layers.append(layer)
    kept = len(layers)
    return {"neuron_tokens": logits[:kept], "neuron_tokens.token_ids": ids[:kept], "neuron_tokens.layers": np.array(layers, dtype=np.int64)}
