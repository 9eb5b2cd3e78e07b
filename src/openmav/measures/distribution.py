"""Output distribution: how the next-token probability is spread over ranks.

[bins, 2], probability: the mass of the most likely token, the 2nd, the 3rd to 4th, ... up to each edge of record.RANK_EDGES,
and the rest of the vocabulary; first column raw, second after the sampling chain, both binned by the raw rank. Columns sum to 1.
"""

from __future__ import annotations

import numpy as np

from openmav.backends.base import Frame
from openmav.measures.base import Context, array_of
from openmav.record import RANK_EDGES, Array

TITLE = "output distribution"
NEEDS = ()
_FIRST = np.array([0, *RANK_EDGES[:-1]])  # the first rank of each bin, counted from 0; the last bin is the rest


def compute(_frame: Frame, context: Context) -> Array:
    """[len(RANK_EDGES) + 1, 2] fp32; the sums run in fp64."""
    top = array_of(context.top_ids)[: RANK_EDGES[-1]]
    ranked, sampled = np.empty((2, len(top))), array_of(context.sampled_probs)
    ranked[0], ranked[1] = array_of(context.probs)[top], sampled[top]
    first = _FIRST[len(top) > _FIRST]
    masses = np.zeros((len(RANK_EDGES) + 1, 2), dtype=np.float32)
    masses[: len(first)] = np.add.reduceat(ranked, first, axis=1).T
    masses[-1] = np.maximum(1.0 - ranked.sum(axis=1), 0.0)  # NaN stays NaN
    if len(top) == len(context.probs):
        masses[-1] = 0.0  # there is no rest, and a difference of floats is none
    elif masses[-1, 1] > 0 and np.count_nonzero(sampled) == np.count_nonzero(ranked[1]):
        masses[-1, 1] = 0.0  # sampling left nothing of the rest
    return masses
