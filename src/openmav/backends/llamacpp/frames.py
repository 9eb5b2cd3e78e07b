"""From what was read in a pass to the sites of a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Layers
from openmav.backends.llamacpp import native
from openmav.backends.llamacpp.examined import Examined
from openmav.backends.llamacpp.graph import Node
from openmav.backends.llamacpp.passes import Passes, nodes_of, summed
from openmav.backends.llamacpp.tap import MASK, SCORES, Values
from openmav.backends.sites import SITES

ALIKE = SITES - {SCORES, "router.experts"}  # sites that are shown as they were read


def sites(examined: Examined, values: Values, want: frozenset[str], tokens: int, passes: Passes) -> dict[str, Sequence[NDArray | None]]:
    """The wanted sites, an entry a layer; backends/base.py gives the shapes."""
    result: dict[str, Sequence[NDArray | None]] = {}
    for site in want & examined.known:
        missing = examined.missing.get(site, {})
        together = None if missing or site not in ALIKE else values.together(site)
        if together is not None:
            rows = together[:, 0, :, 0, :tokens] if site == "attention.probs" else together.reshape(len(together), -1)
            result[site] = Layers(rows)
            continue
        arrays: list[NDArray | None] = [None] * examined.layers
        for layer in range(examined.layers):
            value = None if layer in missing else summed(values, site, layer)
            if value is not None:
                arrays[layer] = _shaped(site, layer, value, tokens, passes, values)
        result[site] = arrays
    return result


def _shaped(site: str, layer: int, value: NDArray, tokens: int, passes: Passes, values: Values) -> NDArray:
    if site == "attention.probs":
        return value[0, :, 0, :tokens]
    if site == SCORES:
        return _scores(value[0, :, 0, :tokens], values[MASK, layer, 0][..., 0, :tokens].reshape(-1), layer, passes)
    flat = value.reshape(-1)
    if site == "router.experts":
        learned = passes.learned["one"]
        count = learned.graph.nodes[nodes_of(learned.anatomy.layers[layer], site)[0]].shape[0]
        return flat[:count].astype(np.int64)
    return flat


def _scores(scores: NDArray[np.float32], mask: NDArray, layer: int, passes: Passes) -> NDArray[np.float32]:
    """[heads, keys] as softmax takes them: times its scale, plus the mask [keys], which ALiBi multiplies by a slope a head."""
    learned = passes.learned["one"]
    rows = learned.anatomy.layers[layer].rows
    assert rows is not None
    scale, bias = softmax_params(learned.graph.nodes[rows])
    slopes = np.ones((len(scores), 1), dtype=np.float32) if bias == 0 else alibi(len(scores), bias)
    result: NDArray[np.float32] = scores * np.float32(scale) + slopes * mask.astype(np.float32)
    return result


def softmax_params(node: Node) -> tuple[float, float]:
    """The scale and the largest ALiBi bias of a softmax."""
    params = np.frombuffer(bytes(native.Tensor.from_address(node.address).op_params), dtype=np.float32)
    return float(params[0]), float(params[1])


def alibi(heads: int, bias: float) -> NDArray[np.float32]:
    """[heads, 1]: the slopes of ALiBi (Press et al., 2022) as ggml computes them."""
    power = 2 ** int(np.floor(np.log2(heads)))
    first, second = 2.0 ** (-bias / power), 2.0 ** (-(bias / 2) / power)
    slopes = [first ** (head + 1) if head < power else second ** (2 * (head - power) + 1) for head in range(heads)]
    return np.array(slopes, dtype=np.float32)[:, None]
