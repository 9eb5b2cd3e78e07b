"""The norm of one vector per layer, shared by the norm measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from openmav.backends.base import Frame, Layers
from openmav.measures.base import array_of, is_small, stacked
from openmav.record import Array
from openmav.settings import Aggregation

_SITES = ("mlp.out", "attention.out", "residual.after")


def norms(frame: Frame, site: str, aggregation: Aggregation) -> Array:
    """L2 norm sqrt(sum x^2), or max |x|, of each layer's vector at one of these sites, in fp32; [layers], NaN where a layer has none.

    All these sites that the frame has are computed together, once per frame: after a small model's pass a call costs more than its work.
    """
    return frame.once(f"norms {aggregation}", partial(_of_all, aggregation=aggregation))[site]


def _of_all(frame: Frame, aggregation: Aggregation) -> dict[str, Array]:
    sites = {site: frame.rows(site) for site in _SITES if site in frame.sites}
    if all(isinstance(rows, Layers) for rows in sites.values()):  # each is one tensor as it is
        return {site: _lengths(rows, aggregation) for site, rows in sites.items()}
    try:
        lengths = _lengths([row for rows in sites.values() for row in rows], aggregation)
    except (RuntimeError, ValueError):  # vectors of several widths
        return {site: _lengths(rows, aggregation) for site, rows in sites.items()}
    result, first = {}, 0
    for site, rows in sites.items():
        result[site] = lengths[first : first + len(rows)]
        first += len(rows)
    return result


def _lengths(rows: Sequence[Any], aggregation: Aggregation) -> Array:
    stack, present = stacked(rows)
    if stack is None:
        return np.full(len(rows), np.nan, dtype=np.float32)
    order = 2.0 if aggregation == "l2" else math.inf
    if is_small(stack):
        with np.errstate(over="ignore", invalid="ignore"):
            lengths: Array = np.linalg.norm(array_of(stack), ord=order, axis=-1)
    else:
        import torch

        lengths = torch.linalg.vector_norm(stack, ord=order, dim=-1).cpu().numpy()
    if len(present) == len(rows):
        return lengths
    padded = np.full(len(rows), np.nan, dtype=np.float32)
    padded[present] = lengths
    return padded
