"""The norm of one vector per layer, shared by the norm measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from openmav.measures.base import stacked
from openmav.record import Array
from openmav.settings import Aggregation

if TYPE_CHECKING:
    from torch import Tensor


def norms(rows: Sequence[Tensor | None], aggregation: Aggregation) -> Array:
    """L2 norm sqrt(sum x^2), or max |x|, of each layer's vector, in fp32; [layers], NaN where a layer has none."""
    import torch

    stack, layers = stacked(rows)
    if stack is None:
        return np.full(len(rows), np.nan, dtype=np.float32)
    order = 2.0 if aggregation == "l2" else math.inf
    lengths: Array = torch.linalg.vector_norm(stack, ord=order, dim=-1).cpu().numpy()
    if len(layers) == len(rows):
        return lengths
    padded = np.full(len(rows), np.nan, dtype=np.float32)
    padded[layers] = lengths
    return padded
