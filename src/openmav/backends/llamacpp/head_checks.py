"""The head at load: whether its lens of the last layer is the model's logits, and how far parts can be followed to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import NO_ATTENTION, NO_MLP
from openmav.backends.llamacpp import insides
from openmav.backends.llamacpp.examined import Examined, apart
from openmav.backends.llamacpp.graph import Graph
from openmav.backends.llamacpp.head import LinearHead, LlamaHead, linear
from openmav.backends.llamacpp.native import Tensor
from openmav.backends.llamacpp.tail import Tail, UnreadableError, Weight, on_cpu
from openmav.backends.sites import HEAD_SITES

LENS = 1e-4  # of the largest logit: the same operations, on one row or on several
TOKENS = 64  # on which the directions are compared with the logits
NORMED = "a norm or a factor stands between its neurons and the residual stream"
ELSEWHERE = "the weights of its neurons are on another device"
LINEAR_SITES = ("head.direction", "head.neurons")


def check(examined: Examined, graph: Graph, states: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Set the head that is right on these states [n, width] after the last layer, whose logits [n, vocab] the model computed."""
    assert examined.parts is not None
    everywhere = range(examined.layers)
    native, threads = examined.weights.native, examined.settings.threads
    try:
        tail = Tail(native, graph, examined.parts.tail, threads or examined.weights.threads)
        error = max(apart(tail.logits(state[None]), own[None]) for state, own in zip(states, logits))
        error = max(error, apart(tail.logits(states), logits))
    except UnreadableError as problem:
        examined.lack(sorted(HEAD_SITES), everywhere, str(problem))
        return
    examined.errors["lens"] = error
    if not error <= LENS:
        why = f"the lens of the last layer is not the model's logits (off by {error:.1g} of the largest)"
        examined.lack(sorted(HEAD_SITES), everywhere, why)
        return
    examined.head = LlamaHead(tail)
    try:
        head = linear(native, tail, _embeddings(graph))
        _check_linear(examined, head, states, logits)
    except UnreadableError as problem:
        examined.lack(LINEAR_SITES, everywhere, str(problem))
        return
    examined.head.linear = head
    _follow(examined, graph)


def _embeddings(graph: Graph) -> int | None:
    """The address of the embeddings as the model looks them up."""
    for node in graph.nodes:
        if node.op == "GET_ROWS" and graph.at(node.sources[0]).name.startswith("token_embd"):
            return node.sources[0]
    return None


def _check_linear(examined: Examined, head: LinearHead, states: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Raises UnreadableError where the directions do not give the model's logits."""
    ids = np.linspace(0, logits.shape[-1] - 1, min(TOKENS, logits.shape[-1])).astype(int).tolist()
    worst = 0.0
    for state, own in zip(states, logits):
        lines: Any = head.directions(state, ids, own)
        mine = lines.vectors.astype(np.float64) @ state.astype(np.float64) + lines.constants
        if head.cap is not None:
            mine = head.cap * np.tanh(mine / head.cap)
        worst = max(worst, float(np.abs(mine - own[ids]).max() / max(float(np.abs(own).max()), 1e-30)))
    examined.errors["directions"] = worst
    if not worst <= examined.linear_limit:
        raise UnreadableError(f"the directions do not give the model's logits (off by {worst:.1g} of the largest)")


def _follow(examined: Examined, graph: Graph) -> None:
    """Which parts can be followed to the logits, and through which maps neurons reach the stream."""
    assert examined.parts is not None
    assert examined.head is not None
    unknown = [layer for layer in range(examined.layers) if _not_known(examined, layer)]
    if unknown:
        why = f"what layer {unknown[-1]} adds is not known, so nothing up to there can be followed to the logits"
        examined.lack(LINEAR_SITES, range(unknown[-1] + 1), why)
    downs: dict[int, Weight] = {}
    for number, layer in enumerate(examined.parts.layers):
        reason = examined.missing.get("mlp.hidden", {}).get(number) or examined.missing.get("head.neurons", {}).get(number)
        if reason is None:
            down, plain = insides.last_map(graph, layer)
            if down is not None and plain and on_cpu(graph.native, Tensor.from_address(down)):
                downs[number] = Weight(examined.head.tail.cpu, down)
                continue
            reason = ELSEWHERE if down is not None and plain else NORMED
        examined.lack(["head.neurons"], [number], reason)
    examined.head.downs = downs


def _not_known(examined: Examined, layer: int) -> bool:
    reasons = {examined.missing.get(site, {}).get(layer) for site in ("attention.out", "mlp.out", "other.out")}
    return bool(reasons - {None, NO_ATTENTION, NO_MLP})
