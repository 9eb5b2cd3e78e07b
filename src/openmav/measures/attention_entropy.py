"""Attention entropy: how widely each head of each layer spreads its attention from the last position.

[layers, heads] in nats: H = -sum_j a_j ln a_j over the keys, with 0 ln 0 = 0; 0 means one token only, ln(keys) means equal weights. With
a learned sink the row sums to less than 1, and the sum runs over the keys only. A key is a token; in
models with compressed keys some are blocks of several tokens, and each counts as one.
Source: Clark et al., "What Does BERT Look At?" (2019), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from openmav.backends.base import Frame
from openmav.measures.base import Context, alike, array_of, is_small, stacked
from openmav.record import Array

TITLE = "attention entropy"
NEEDS = ("attention.probs",)
TINY = np.float32(1e-37)  # whose logarithm is finite; it changes no weight that counts
LEAST = np.float32(-200.0)  # finite where a row is exactly 0; ln of the smallest fp32 is -103


def entropy(rows: Any) -> Array:
    """[..., keys] fp32 -> [...]."""
    if is_small(rows):
        weights = array_of(rows)
        logs = weights + TINY
        np.log(logs, out=logs)
        sums = (logs[..., None, :] @ weights[..., None])[..., 0, 0]  # a product a row, without an array of all terms
    else:
        import torch

        sums = torch.log(rows).clamp_min_(float(LEAST)).mul_(rows).sum(-1).cpu().numpy()
    entropies: Array = np.maximum(0.0 - sums, 0.0)  # below 0 by rounding only
    return entropies


def compute(frame: Frame, _context: Context) -> Array:
    """[layers, heads] fp32; NaN for a layer without softmax attention. Computed once per frame."""
    return frame.once("attention_entropy", _entropies)


def _entropies(frame: Frame) -> Array:
    rows = frame.rows("attention.probs")
    groups = alike(rows)
    if len(groups) == 1 and len(groups[0]) == len(rows):
        return _of(rows)
    heads = max((row.shape[0] for row in rows if row is not None), default=frame.heads)
    result = np.full((len(rows), heads), np.nan, dtype=np.float32)
    for layers in groups:
        part = _of([rows[i] for i in layers])
        result[layers, : part.shape[1]] = part
    return result


def _of(rows: Sequence[Any]) -> Array:
    """Entropies of rows that are all present and of one shape."""
    stack, _ = stacked(rows)
    assert stack is not None
    return entropy(stack)
