"""The parts of a model in its graph: found by following the additions that make the residual stream, not by names.

The stream begins with what is made of the embeddings alone, and each layer adds to it: a term that reads the cache is the layer's
attention (or another mixer of tokens), one that is made of an MLP's weights is its MLP. Names of weights and of parts of the cache
are part of the file's format; names of results are used nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openmav.backends.llamacpp import insides
from openmav.backends.llamacpp.graph import ALIASES, Graph, Node, layer_of
from openmav.backends.llamacpp.insides import STATES, Layer

PASSES = ALIASES | {"GET_ROWS", "CONT"}  # what the residual stream goes through as it is
CACHES = ("cache_k", "cache_v", "cache_r", "cache_s")
FFN = (".ffn_", ".channel_mix_")
NO_STREAM = "the residual stream of this model could not be followed"


class NotFollowedError(Exception):
    """The residual stream is not a chain of additions; the text says why."""


@dataclass(frozen=True)
class Anatomy:
    """`tail` are the nodes that make logits of the stream after the last layer, in order."""

    layers: tuple[Layer, ...]
    start: int
    end: int
    logits: int
    tail: tuple[int, ...]


def find(graph: Graph, layers: int) -> Anatomy:
    """Raises NotFollowedError."""
    if any(source.index >= node.index for node in graph.nodes for source in graph.sources(node) if not source.is_leaf):
        raise NotFollowedError("its graph is not in the order of its computation")
    logits = _logits(graph)
    stream = _Stream(graph)
    tail = _tail(graph, stream, logits)
    end, terms = stream.terms(graph.sources(graph.nodes[tail[0]]), tail[0])
    parts = _by_layer(graph, stream, terms, layers, end)
    return Anatomy(parts, stream.start.index, parts[-1].after, logits.index, tuple(tail))


def _logits(graph: Graph) -> Node:
    for node in reversed(graph.nodes):
        if node.name == "result_output":
            return node
    return graph.nodes[-1]


class _Stream:
    """Which nodes are the residual stream."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.start = _start(graph)
        self._known: dict[int, bool] = {self.start.address: True}

    def has(self, node: Node) -> bool:
        if node.address not in self._known:
            self._known[node.address] = self._look(node)
        return self._known[node.address]

    def _look(self, node: Node) -> bool:
        if node.is_leaf or node.index < self.start.index:
            return False
        if node.op in PASSES:
            return self.has(self.graph.sources(node)[0])
        return node.op == "ADD" and any(self.has(source) for source in self.graph.sources(node))

    def terms(self, sources: Sequence[Node], before: int) -> tuple[Node, list[tuple[Node, Node]]]:
        """The stream's last node, and [(the sum, what was added)] from the first addition to the last."""
        node = next((source for source in sources if self.has(source)), None)
        if node is None:
            raise NotFollowedError(f"node {before} does not take it")
        end, result = node, []
        while node.address != self.start.address:
            if node.op in PASSES:
                node = self.graph.sources(node)[0]
                continue
            both = self.graph.sources(node)
            mine = [source for source in both if self.has(source)]
            if len(mine) != 1:
                raise NotFollowedError("two streams are added")
            rest = next(source for source in both if source is not mine[0])
            result.append((node, rest))
            node = mine[0]
        while end.op in PASSES and end.address != self.start.address:
            end = self.graph.sources(end)[0]
        return end, result[::-1]


def _start(graph: Graph) -> Node:
    """The last node that is made of the embeddings and of no layer's weights, and that a layer takes."""
    of_tokens: dict[int, bool] = {}
    for node in graph.nodes:
        mine = any(source.name.startswith("token_embd") or of_tokens.get(source.address, False) for source in graph.sources(node))
        of_tokens[node.address] = mine
    candidates = [
        node
        for node in graph.nodes
        if of_tokens[node.address]
        and graph.weight_layers[node.index] < 0
        and node.op not in ALIASES
        and node.shape[0] > 1
        and any(graph.weight_layers[c.index] >= 0 or c.op in ("RMS_NORM", "NORM", "ADD") for c in graph.consumers.get(node.address, ()))
    ]
    first = min((node.index for node in graph.nodes if graph.weight_layers[node.index] >= 0), default=0)
    candidates = [node for node in candidates if node.index < first and node.op not in ("RMS_NORM", "NORM")] or candidates
    if not candidates:
        raise NotFollowedError("no embeddings were found")
    return candidates[-1]


def _tail(graph: Graph, stream: _Stream, logits: Node) -> list[int]:
    """From the first node after the stream to the logits."""
    result: list[int] = []
    node = logits
    while not stream.has(node):
        result.append(node.index)
        made = [source for source in graph.sources(node) if not source.is_leaf]
        made = [source for source in made if stream.has(source)] or made
        if len(made) != 1:
            raise NotFollowedError(f"{node.op} before the logits takes {len(made)} results")
        node = made[0]
    if not result:
        raise NotFollowedError("there is nothing after it")
    return result[::-1]


def _by_layer(graph: Graph, stream: _Stream, terms: Sequence[tuple[Node, Node]], count: int, end: Node) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    whole = frozenset(address for address, mine in stream._known.items() if mine)
    at = stream.start.index
    grouped: dict[int, list[tuple[Node, Node]]] = {}
    highest = 0
    for total, term in terms:
        highest = max(highest, _layer_of(graph, term, whole))
        grouped.setdefault(highest, []).append((total, term))
    for number in range(count):
        mine = grouped.get(number)
        if not mine:
            raise NotFollowedError(f"nothing is added in layer {number}")
        layer = Layer(at, mine[-1][0].index)
        for _, term in mine:
            for addend in _addends(graph, term, whole):
                _place(graph, layer, addend, whole)
        insides.find(graph, layer, whole)
        layers.append(layer)
        at = layer.after
    if grouped.keys() - set(range(count)) or layers[-1].after != end.index:
        raise NotFollowedError("there are additions of no layer")
    return tuple(layers)


def _layer_of(graph: Graph, term: Node, stream: frozenset[int]) -> int:
    return max((layer_of(node.name) for node in graph.above(term, stream) if node.is_leaf), default=-1)


def _leaves(graph: Graph, node: Node, stream: frozenset[int]) -> list[str]:
    return [source.name for source in graph.above(node, stream) if source.is_leaf]


def _mixes(graph: Graph, node: Node, stream: frozenset[int]) -> bool:
    """Whether earlier tokens have a part in it."""
    above = list(graph.above(node, stream))
    return any(source.op in STATES or (source.is_leaf and source.name.startswith(CACHES)) for source in above)


def _addends(graph: Graph, node: Node, stream: frozenset[int]) -> Iterator[Node]:
    """What is added at once in a parallel block, one by one."""
    both = graph.sources(node) if node.op == "ADD" else []
    if len(both) == 2 and not any(source.is_leaf for source in both):
        one, two = (_mixes(graph, source, stream) for source in both)
        if one != two and all(_has_weights(graph, source, stream) for source in both):
            for source in both:
                yield from _addends(graph, source, stream)
            return
    yield node


def _has_weights(graph: Graph, node: Node, stream: frozenset[int]) -> bool:
    return any(source.op in ("MUL_MAT", "MUL_MAT_ID") for source in graph.above(node, stream))


def _place(graph: Graph, layer: Layer, node: Node, stream: frozenset[int]) -> None:
    if _mixes(graph, node, stream):
        layer.attention.append(node.index)
    elif any(part in name for name in _leaves(graph, node, stream) for part in FFN):
        layer.mlp.append(node.index)
    else:
        layer.other.append(node.index)
