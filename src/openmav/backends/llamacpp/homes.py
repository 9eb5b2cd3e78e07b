"""Results in memory of mav's own: llama.cpp then writes them there, and a pass need not stop so that they can be copied.

It keeps a graph from pass to pass as long as the sizes stay, and in it, for each tensor, the address of its numbers. Until it makes
another graph, these can be addresses that nothing else is written to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp.graph import ALIASES, Graph, Node
from openmav.backends.llamacpp.native import Tensor
from openmav.backends.llamacpp.tap import MASK, NUMBERS, Plan, Values
from openmav.backends.sites import ROW_SITES

ALIGNED = 64  # bytes, as the rows of ggml's own memory
CELLS = 256  # by which the keys of a graph grow
DATA = Tensor.data.offset


class Homes:
    """The memory of all that a plan reads in a graph, for passes that end before the token `last`."""

    def __init__(self, graph: Graph, plan: Plan, last: int) -> None:
        self.plan, self.last = plan, last
        self._sizes: dict[int, int] = {}  # bytes of a row of each group
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._fields: list[tuple[ctypes.c_size_t, int, int]] = []  # where the address of a tensor's numbers stands, what it was, what it is
        self._twice: list[tuple[int, int, int, int]] = []  # group and row of what another group's row has, too
        places: dict[int, tuple[int, int]] = {}
        reads = [read for stop in plan.stops.values() for read in stop.reads]
        self._of_keys = {read.group for read in reads if read.key[0] in (*ROW_SITES, MASK)}
        for read in reads:
            self._sizes[read.group] = int(read.tensor.nb[3])
        for group, size in self._sizes.items():
            rows, wide = plan.groups[group][1], size + -size % ALIGNED
            whole = np.zeros(rows * wide + ALIGNED, dtype=np.uint8)
            begin = -whole.ctypes.data % ALIGNED
            self._memory[group] = whole[begin : begin + rows * wide].reshape(rows, wide)
        for read in reads:
            place = places.setdefault(read.address, (read.group, read.row))
            if place != (read.group, read.row):
                self._twice.append((read.group, read.row, *place))
                continue
            home = self._memory[read.group][read.row].ctypes.data
            old = read.tensor.data
            for node in _same_memory(graph, graph.at(read.address)):
                field = ctypes.c_size_t.from_address(node.address + DATA)
                self._fields.append((field, field.value, home + field.value - old))

    def move(self) -> None:
        """The next pass writes here, as long as its graph is the same."""
        for field, _, home in self._fields:
            field.value = home

    def leave(self) -> None:
        """The tensors are where they were; those of another graph stay as they are."""
        for field, old, home in self._fields:
            if field.value == home:
                field.value = old

    def values(self, tokens: int | None = None) -> Values:
        """What the last pass wrote; of keys, those of the first `tokens` only, since the rest are no tokens of the text."""
        arrays: list[NDArray | None] = []
        for group, (kind, rows, shape) in enumerate(self.plan.groups):
            numbers = self._memory[group][:, : self._sizes[group]].view(NUMBERS.get(kind, np.float32))
            arrays.append(numbers.reshape(rows, *shape[3:0:-1], -1)[..., : tokens if group in self._of_keys else None].copy())
        for group, row, other, at in self._twice:
            arrays[group][row] = arrays[other][at]  # type: ignore[index]
        return Values(self.plan, arrays)


def can_move(graph: Graph, plan: Plan) -> bool:
    """Whether all that the plan reads is made in this process's own memory, and nothing is changed on the way."""
    if not graph.is_host or any(stop.changes for stop in plan.stops.values()):
        return False
    sizes: dict[int, set[int]] = {}
    for stop in plan.stops.values():
        for read in stop.reads:
            node = graph.at(read.address)
            if not read.host or read.key[0] == MASK or node.is_leaf or node.view_of or node.op in ALIASES or not read.tensor.data:
                return False
            sizes.setdefault(read.group, set()).add(read.tensor.nb[3])
    return bool(sizes) and all(len(some) == 1 and min(some) > 0 for some in sizes.values())


def _same_memory(graph: Graph, node: Node) -> Iterator[Node]:
    """The node, and the views of it."""
    yield node
    yield from (view for view in graph.nodes if view.view_of == node.address)
