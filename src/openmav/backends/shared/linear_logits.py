"""Tokens' logits as a linear function of the residual stream, in numpy, for the heads of all backends.

A head computes factor * (rows[token] . norm(x) + bias[token]), soft-capped or not, and norm(x) is s(x) * weight * C x + shift, where C
subtracts the mean or nothing.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def centre(x: NDArray[Any]) -> NDArray[Any]:
    """[..., width] without its mean."""
    centred: NDArray[Any] = x - x.mean(-1, keepdims=True)
    return centred


def inverse_size(x: Floats, eps: float, centred: bool) -> float:
    """1 / sqrt(mean((C x)^2) + eps) of [width], in fp64."""
    wide = x.astype(np.float64)
    wide = centre(wide) if centred else wide
    return float(1.0 / math.sqrt(wide @ wide / len(wide) + eps))


def directions(
    rows: Floats,
    weight: Floats | None,
    shift: Floats | None,
    bias: Floats | None,
    *,
    factor: float,
    scale: float,
    centred: bool,
) -> tuple[Floats, Floats]:
    """Vectors [tokens, width] and constants [tokens] of the logits before a soft cap, vectors @ x + constants.

    `rows` [tokens, width] and `bias` [tokens] are the head's, `weight` and `shift` [width] the norm's, `scale` is s(x).
    """
    rows = np.float32(factor) * rows
    weighted = rows if weight is None else rows * weight
    vectors = np.float32(scale) * (centre(weighted) if centred else weighted)
    constants = np.zeros(len(rows), dtype=np.float32) if shift is None else rows @ shift
    return vectors, constants if bias is None else constants + np.float32(factor) * bias
