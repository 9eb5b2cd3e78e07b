"""Neurons: the strongest of each layer's MLP at the last position.

"neurons" [layers, k] are the values after the activation (and after the gate, where there is one) with the largest magnitude,
strongest first, with their sign; "neurons.ids" [layers, k] says which: entry i of the input of the MLP's last linear map. A
mixture-of-experts layer has none: see the router measure for its experts.
Source: Geva et al., "Transformer Feed-Forward Layers Are Key-Value Memories" (2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.backends.shared.largest import most_likely
from openmav.measures.base import Context, alike, stacked

TITLE = "neurons"
NEEDS = ("mlp.hidden",)
TOP = 8


def compute(frame: Frame, _context: Context) -> Mapping[str, NDArray]:
    """fp32 and int64; NaN and -1 for a layer without such neurons, and beyond the width of a narrow one. Computed once per frame."""
    return frame.once("neurons", _strongest)


def _strongest(frame: Frame) -> Mapping[str, NDArray]:
    rows = frame.rows("mlp.hidden")
    widest = max((len(row) for row in rows if row is not None), default=0)
    values = np.full((len(rows), min(TOP, widest)), np.nan, dtype=np.float32)
    ids = np.full(values.shape, -1, dtype=np.int64)
    for layers in alike(rows):
        stack, _ = stacked([rows[i] for i in layers])
        assert stack is not None
        count = min(TOP, stack.shape[-1])
        if isinstance(stack, np.ndarray):
            top = np.stack([most_likely(sizes, count) for sizes in np.abs(stack)])
            values[layers, :count], ids[layers, :count] = np.take_along_axis(stack, top, axis=-1), top
            continue
        top = stack.abs().topk(count, dim=-1).indices
        values[layers, :count] = stack.gather(-1, top).cpu().numpy()
        ids[layers, :count] = top.cpu().numpy()
    return {"neurons": values, "neurons.ids": ids}
