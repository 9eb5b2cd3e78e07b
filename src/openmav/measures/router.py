"""Router: the experts that the router of each mixture-of-experts layer selected at the last position.

"router" [layers, k] are the weights that the experts' outputs get (in Llama 4 their inputs), largest first; "router.ids"
[layers, k] says which experts.
k is the number of experts per token; whether the weights sum to 1 depends on the model (some scale them).
Source: Shazeer et al., "Outrageously Large Neural Networks" (2017); Fedus et al., "Switch Transformers" (2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.measures.base import Context, array_of

TITLE = "router"
NEEDS = ("router.experts", "router.weights")


def compute(frame: Frame, _context: Context) -> Mapping[str, NDArray]:
    """fp32 and int64; NaN and -1 for a layer without experts, and beyond the number that a layer selected."""
    experts, weights = frame.rows("router.experts"), frame.rows("router.weights")
    chosen = max((len(e) for e in experts if e is not None), default=0)
    values = np.full((len(experts), chosen), np.nan, dtype=np.float32)
    ids = np.full(values.shape, -1, dtype=np.int64)
    for layer, (expert, weight) in enumerate(zip(experts, weights)):
        if expert is not None and weight is not None:
            given = array_of(weight if isinstance(weight, np.ndarray) else weight.float())
            order = (-given).argsort(kind="stable")
            values[layer, : len(order)] = given[order]
            ids[layer, : len(order)] = array_of(expert)[order]
    return {"router": values, "router.ids": ids}
