"""The tokens whose logits each neuron raises and lowers most, kept per unit of its activation, so that each is computed once.

Source: Geva et al., "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space" (2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Numbers
from openmav.backends.shared.largest import most_likely

MOST = 50_000  # neurons in the cache
_SIGNS = np.array([[1], [-1]], dtype=np.float32)  # raised, and lowered


class NeuronEffects:
    """The effects are of a final norm of scale 1; `count` tokens are kept of each direction."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[NDArray, NDArray]] = {}  # (layer, neuron, count): ids and logits, [1, 2, count]

    def missing(self, layer: int, ids: Iterable[int], count: int) -> list[int]:
        """Those of the neurons that are not kept."""
        return [i for i in ids if (layer, i, count) not in self._known]

    def keep(self, layer: int, ids: Sequence[int], logits: Numbers, count: int) -> None:
        """`logits` [n, vocab]: what one unit of each neuron adds to the logits."""
        if len(self._known) > MOST:
            self._known.clear()
        if isinstance(logits, np.ndarray):
            tokens = np.stack([[most_likely(row, count), most_likely(-row, count)] for row in logits])
            moved = np.take_along_axis(logits[:, None], tokens, axis=-1)
        else:
            tops = logits.topk(count), logits.topk(count, largest=False)
            tokens, moved = (np.stack([getattr(top, what).cpu().numpy() for top in tops], 1) for what in ("indices", "values"))
        for at, neuron in enumerate(ids):
            self._known[layer, neuron, count] = tokens[at : at + 1], moved[at : at + 1]

    def of(self, layer: int, ids: Sequence[int], factors: NDArray[np.float32], count: int) -> tuple[NDArray, NDArray]:
        """[n, 2, count] ids and logits of kept neurons at `factors` [n] units. Tokens that one does not move that way: -1, 0."""
        if not ids:
            return np.empty((0, 2, count), dtype=np.int64), np.empty((0, 2, count), dtype=np.float32)
        tokens, logits = (np.concatenate(known) for known in zip(*(self._known[layer, i, count] for i in ids), strict=True))
        turned = factors < 0  # what it raises it lowers then
        tokens[turned], logits[turned] = tokens[turned, ::-1], logits[turned, ::-1]
        logits *= factors[:, None, None]
        wrong = logits * _SIGNS <= 0
        tokens[wrong], logits[wrong] = -1, 0.0
        return tokens, logits
