"""A computation graph of llama.cpp as it ran: its nodes in order, what each is made of, and how long its memory is its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul

from openmav.backends.llamacpp.native import Native, Tensor

ALIASES = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})  # their memory is that of their source, and nothing is computed
COPY = re.compile(r"[^#]+#(.*)#\d+")  # what llama.cpp calls a result's copy in the memory of the device that takes it


@dataclass(frozen=True)
class Node:
    """One tensor: computed where `index` is 0 or more, else a weight, an input or a part of the cache. `shape` begins with the columns."""

    index: int
    address: int
    name: str
    op: str
    type: int
    shape: tuple[int, ...]
    sources: tuple[int, ...]  # addresses
    view_of: int  # address; 0: it has memory of its own
    memory: range  # of its numbers

    @property
    def is_leaf(self) -> bool:
        return self.index < 0


class Graph:
    """The nodes that were asked about in one forward pass; their structs must still be there.

    Where a node takes the copy of a result of another device, the result itself stands among its sources.
    """

    def __init__(self, native: Native, addresses: Sequence[int]) -> None:
        self.native = native
        self.addresses = list(addresses)
        self._known: dict[int, Node] = {}
        self._named: dict[str, list[Node]] = {}
        self._copied: dict[int, int] = {}  # {address: the first node that takes it on another device}
        self.nodes = [self._read(address, index) for index, address in enumerate(self.addresses)]

    def _read(self, address: int, index: int) -> Node:
        tensor = Tensor.from_address(address)
        node = Node(
            index,
            address,
            tensor.name.decode("utf-8", "replace"),
            self.native.op_name(tensor.op),
            tensor.type,
            tuple(tensor.ne),
            tuple(self._origin(source, index) for source in tensor.src if source),
            tensor.view_src or 0,
            range(tensor.data or 0, (tensor.data or 0) + max(map(mul, tensor.ne, tensor.nb))),
        )
        self._known[address] = node
        if index >= 0:
            self._named.setdefault(node.name, []).append(node)
        return node

    def _origin(self, address: int, index: int) -> int:
        """The address of the result that this is a copy of; the same where it is none."""
        if address in self._known or index < 0:
            return address
        tensor = Tensor.from_address(address)
        copied = COPY.fullmatch(tensor.name.decode("utf-8", "replace"))
        if copied is None or tensor.op:
            return address
        for node in reversed(self._named.get(copied[1], ())):
            if (node.type, node.shape) == (tensor.type, tuple(tensor.ne)):
                self._copied.setdefault(node.address, index)
                return node.address
        return address

    def at(self, address: int) -> Node:
        """The node or leaf there."""
        return self._known.get(address) or self._read(address, -1)

    def sources(self, node: Node) -> list[Node]:
        return [self.at(address) for address in node.sources]

    @cached_property
    def consumers(self) -> dict[int, list[Node]]:
        """{address: the nodes that take it}."""
        result: dict[int, list[Node]] = {}
        for node in self.nodes:
            for address in dict.fromkeys((*node.sources, *([node.view_of] if node.view_of else []))):
                if address != node.address:
                    result.setdefault(address, []).append(node)
        return result

    @cached_property
    def weight_layers(self) -> list[int]:
        """For each node the last layer whose weights went into it; -1: none yet."""
        result: list[int] = []
        for node in self.nodes:
            layers = [-1]
            for source in self.sources(node):
                layers.append(layer_of(source.name) if source.is_leaf else result[source.index])
            result.append(max(layers))
        return result

    @cached_property
    def is_host(self) -> bool:
        """Whether all results are in this process's own memory."""
        buffers = {Tensor.from_address(node.address).buffer for node in self.nodes} - {None}
        return all(self.native.ggml.ggml_backend_buffer_is_host(buffer) for buffer in buffers)

    def last_read(self, node: Node) -> int:
        """The last index after which the node's numbers are certainly still there.

        Until another result is written into its memory, where that is this process's own; else until its last consumer, or until it
        is copied for another device.
        """
        if self.is_host:
            return self._kept_until(node)
        last, seen = node.index + 1, [node.address]
        for address in seen:
            for consumer in self.consumers.get(address, ()):
                if consumer.view_of in seen and consumer.op not in ALIASES:  # it writes into this memory
                    return max(node.index, consumer.index - 1)
                if consumer.op in ALIASES:
                    seen.append(consumer.address)
                last = max(last, consumer.index)
        last = min([last, *(self._copied[address] for address in seen if address in self._copied)])
        return max(node.index, last - 1)

    def _kept_until(self, node: Node) -> int:
        start, stop = node.memory.start, node.memory.stop
        for later in self.nodes[node.index + 1 :]:
            if later.memory.start < stop and start < later.memory.stop and later.op not in ALIASES:
                return later.index - 1
        return len(self.nodes) - 1

    def above(self, node: Node, until: frozenset[int]) -> Iterator[Node]:
        """The node and all nodes and leaves that it is computed from, without those at the addresses in `until` and what is behind them."""
        stack, seen = [node], {node.address}
        while stack:
            current = stack.pop()
            yield current
            for source in self.sources(current):
                if source.address not in seen and source.address not in until:
                    seen.add(source.address)
                    stack.append(source)

    def same_as(self, other: Graph) -> bool:
        """Whether all nodes are the same operations on the same sources, whatever their sizes."""
        return len(self.nodes) == len(other.nodes) and all(
            (a.name, a.op, a.address, a.sources, a.view_of) == (b.name, b.op, b.address, b.sources, b.view_of)
            for a, b in zip(self.nodes, other.nodes)
        )


def layer_of(name: str) -> int:
    """The layer of a weight or of a part of the cache, by its name; -1: of none."""
    for prefix in ("blk.", "cache_k_l", "cache_v_l", "cache_r_l", "cache_s_l"):
        if name.startswith(prefix):
            digits = name[len(prefix) :].split(".")[0].split(" ")[0]
            return int(digits) if digits.isdigit() else -1
    return -1
