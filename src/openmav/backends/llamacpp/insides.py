"""Inside of a layer: its attention rows, the outputs of its heads, its neurons, and its choice of experts, as the graph has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from openmav.backends.base import NO_ATTENTION, NO_MLP
from openmav.backends.llamacpp.graph import ALIASES, Graph, Node

STATES = frozenset({"SSM_SCAN", "SSM_CONV", "RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET"})
NOT_FOUND = "not found in the graph of this model"
SEVERAL = "its attention has several rows a head"
FUSED = "its attention is fused, so that there are no rows"
EXPERTS = "its MLP consists of experts"
NO_ROUTER = "no router in this layer"
NO_ROWS = "this layer has no softmax attention"


@dataclass
class Layer:
    """The nodes of one layer, by index in the graph; None: there is none, and `missing` says why."""

    before: int
    after: int
    attention: list[int] = field(default_factory=list)  # their sum is what the sub-block adds
    mlp: list[int] = field(default_factory=list)
    other: list[int] = field(default_factory=list)
    rows: int | None = None  # softmax
    scores: int | None = None  # its input
    heads: int | None = None  # all heads' outputs, side by side
    hidden: int | None = None
    experts: int | None = None
    weights: int | None = None  # of the experts
    kind: str = ""
    missing: dict[str, str] = field(default_factory=dict)


def find(graph: Graph, layer: Layer, stream: frozenset[int]) -> None:
    """Fill in the layer's nodes behind what its parts add; `stream` are the addresses of the residual stream."""
    _rows(graph, layer, stream)
    _mlp(graph, layer, stream)


def _rows(graph: Graph, layer: Layer, stream: frozenset[int]) -> None:
    above = [node for at in layer.attention for node in graph.above(graph.nodes[at], stream)]
    rows = [node for node in above if node.op == "SOFT_MAX" and len(node.sources) > 1]
    states = sorted({node.op for node in above if node.op in STATES})
    layer.kind = "attention" if rows else (states[0].lower() if states else "mixer" if layer.attention else "none")
    why = None
    if not layer.attention:
        layer.missing["attention.out"] = why = NO_ATTENTION
    elif any(node.op == "FLASH_ATTN_EXT" for node in above):
        why = FUSED
    elif len(rows) != 1:
        why = SEVERAL if rows else NO_ROWS
    if why is not None:
        layer.missing |= dict.fromkeys(("attention.probs", "attention.scores"), why)
        return
    layer.rows = rows[0].index
    score = graph.at(rows[0].sources[0])
    layer.scores = None if score.is_leaf else score.index
    layer.heads = _heads(graph, layer, rows[0], stream)


def _heads(graph: Graph, layer: Layer, rows: Node, stream: frozenset[int]) -> int | None:
    """The input of the map that the heads go through last: only reshaped, or multiplied by a gate, since they were made of the rows."""
    if len(layer.attention) != 1:
        return None
    linear = _last_linear(graph, graph.nodes[layer.attention[0]], "MUL_MAT")
    if linear is None:
        return None
    node = taken = graph.at(linear.sources[1])
    for _ in range(12):
        if node.is_leaf:
            return None
        made = [source for source in graph.sources(node) if not source.is_leaf]
        if node.op == "MUL_MAT" and rows.address in node.sources:
            return taken.index if taken.shape[0] % rows.shape[2] == 0 else None
        if node.op in ALIASES | {"CONT"} or (node.op == "MUL_MAT" and len(made) == 1):
            node = made[-1]
        elif node.op == "MUL" and len(made) == 2:
            node = next((m for m in made if rows in graph.above(m, stream)), made[0])
        else:
            return None
    return None


def _last_linear(graph: Graph, node: Node, op: str) -> Node | None:
    """The map that this is the output of, through a bias, a factor and a norm."""
    for _ in range(10):
        if node.is_leaf:
            return None
        if node.op == op:
            return node
        made = [source for source in graph.sources(node) if not source.is_leaf]
        if node.op in ALIASES | {"ADD", "MUL", "SCALE", "RMS_NORM", "NORM", "CONT", "GET_ROWS"} and len(made) == 1:
            node = made[0]
        else:
            return None
    return None


def last_map(graph: Graph, layer: Layer) -> tuple[int | None, bool]:
    """The address of the weight that takes the layer's neurons, and whether its output is added to the stream as it is, but for a bias."""
    if len(layer.mlp) != 1 or layer.hidden is None:
        return None, False
    node = graph.nodes[layer.mlp[0]]
    linear = _last_linear(graph, node, "MUL_MAT")
    if linear is None:
        return None, False
    while node.op in ("ADD", "GET_ROWS") and any(source.is_leaf for source in graph.sources(node)):
        node = next(source for source in graph.sources(node) if not source.is_leaf)
    return linear.sources[0], node is linear


def _mlp(graph: Graph, layer: Layer, stream: frozenset[int]) -> None:
    if not layer.mlp:
        layer.missing |= dict.fromkeys(("mlp.out", "mlp.hidden"), NO_MLP)
    above = [node for at in layer.mlp for node in graph.above(graph.nodes[at], stream)]
    chosen = [node for node in above if node.op == "MUL_MAT_ID"]
    if chosen:
        layer.missing["mlp.hidden"] = EXPERTS
        _router(graph, layer, chosen)
        return
    layer.missing |= dict.fromkeys(("router.experts", "router.weights"), NO_ROUTER)
    linear = _last_linear(graph, graph.nodes[layer.mlp[0]], "MUL_MAT") if len(layer.mlp) == 1 else None
    if linear is not None:
        taken, weight = graph.at(linear.sources[1]), graph.at(linear.sources[0])
        if weight.is_leaf and not taken.is_leaf and taken.op not in ALIASES and taken.address not in stream:
            layer.hidden = taken.index
    if layer.hidden is None:
        layer.missing.setdefault("mlp.hidden", NOT_FOUND)


def _router(graph: Graph, layer: Layer, chosen: Sequence[Node]) -> None:
    """The experts are the indices that all maps of experts take; the weights multiply what the last of these gives."""
    last = max(chosen, key=lambda node: node.index)
    experts = {node.sources[2] for node in chosen}
    ids = graph.at(last.sources[2])
    if len(experts) == 1 and not ids.is_leaf:
        layer.experts = ids.index
        node: Node | None = last
        while node is not None and layer.weights is None:
            following = [c for c in graph.consumers.get(node.address, ()) if c.op in ALIASES | {"MUL", "ADD_ID", "ADD"}]
            node = following[0] if following else None
            if node is not None and node.op == "MUL":
                by = graph.at(node.sources[1])
                if not by.is_leaf and by.shape[0] == 1 and by.shape[1] == ids.shape[0]:
                    layer.weights = by.index
    if layer.experts is None:
        layer.missing["router.experts"] = NOT_FOUND
    if layer.weights is None:
        layer.missing["router.weights"] = NOT_FOUND
