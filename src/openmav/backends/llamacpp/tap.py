"""What llama.cpp calls at each node of its graph: it says where the computation is to stop, and copies or changes values there.

A stop costs a few microseconds, so values are read at as few of them as their memory allows (see `Plan`). Nothing is computed in the
callback, and no exception leaves it: with one, llama.cpp would go on with wrong numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp.graph import Graph, Node
from openmav.backends.llamacpp.insides import Layer
from openmav.backends.llamacpp.native import F16, I32, Native, Tensor

Change: TypeAlias = Callable[[Any, NDArray], NDArray | None]  # called with the tap and a value [rows, columns]; None: leave it
Key: TypeAlias = tuple[str, int, int]  # a site, a layer, and which of its parts
SCORES, MASK = "attention.scores", "attention.mask"
NUMBERS: dict[int, Any] = {F16: np.float16, I32: np.int32}


@dataclass(frozen=True)
class Read:
    """Copy a tensor into row `row` of the buffer of its group."""

    key: Key
    address: int
    tensor: Tensor
    group: int
    row: int
    host: bool


@dataclass
class Stop:
    reads: list[Read] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


class Plan:
    """Where to stop in a graph so that all of `wanted` can be read and `changes` made, with as few stops as possible.

    A value can be read from the node where it is computed until the node before its last consumer, which may write over it; so stops
    are chosen as in interval stabbing: each at the last moment of a value that no earlier stop covers. `exact` stops at each node.
    """

    def __init__(
        self,
        native: Native,
        graph: Graph,
        layers: Sequence[Layer],
        wanted: Mapping[Key, int],
        changes: Sequence[tuple[int, Change]] = (),
        *,
        exact: bool = False,
    ) -> None:
        self.graph = graph
        self.stops: dict[int, Stop] = {}
        self.groups: list[tuple[int, int, tuple[int, ...]]] = []  # type, rows, and the shape of each
        self._numbers: dict[tuple[str, int, tuple[int, ...]], int] = {}
        for index, change in changes:
            self._stop(index).changes.append(change)
        spans = sorted((index if exact else graph.last_read(graph.nodes[index]), index, key) for key, index in wanted.items())
        at = -1
        for end, index, key in spans:
            if at < index:
                at = end
            self._stop(at).reads.append(self._read(native, key, graph.nodes[index]))
            if key[0] == SCORES:  # their mask is an input of the graph, and there as long as they are
                rows = graph.nodes[layers[key[1]].rows or 0]
                self._stop(at).reads.append(self._read(native, (MASK, *key[1:]), graph.at(rows.sources[1])))
        self.reads = [read for stop in self.stops.values() for read in stop.reads]

    def _stop(self, index: int) -> Stop:
        return self.stops.setdefault(self.graph.nodes[index].address, Stop())

    def _read(self, native: Native, key: Key, node: Node) -> Read:
        tensor = Tensor.from_address(node.address)
        kind = key[0], node.type, node.shape
        number = self._numbers.setdefault(kind, len(self.groups))
        if number == len(self.groups):
            self.groups.append((node.type, 0, node.shape))
        of, row, shape = self.groups[number]
        self.groups[number] = of, row + 1, shape
        return Read(key, node.address, tensor, number, row, is_host(native, tensor))


def is_host(native: Native, tensor: Tensor) -> bool:
    """Whether the tensor's numbers are in this process's own memory."""
    buffer = tensor.buffer or (Tensor.from_address(tensor.view_src).buffer if tensor.view_src else None)
    return not buffer or bool(native.ggml.ggml_backend_buffer_is_host(buffer))


class Tap:
    """One context's callback. Without a plan nothing stops; `record` notes the nodes of a pass."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.start = 0  # position of the first token of the pass
        self.error: Exception | None = None
        self.asked: list[int] = []
        self.calls = 0
        self._plan: Plan | None = None
        self._recording = False
        self._buffers: list[NDArray[np.uint8] | None] = []
        self._addresses: list[int] = []
        self.callback = native.llama.ggml_backend_sched_eval_callback(self._make())

    def _make(self) -> Callable[[int, bool, object], bool]:
        def call(address: int, ask: bool, _data: object) -> bool:
            try:
                if not ask:
                    self._at(address)
                    return True
                if self._stops is None:
                    return False
                self._note(address)
                return address in self._stops
            except Exception as error:
                self.error = error
                return True

        return call

    _stops: Mapping[int, Stop] | None = None

    def begin(self, plan: Plan | None, start: int, *, record: bool = False) -> None:
        """The next pass follows the plan."""
        self.start, self.error = start, None
        self.asked = []
        self._note = self.asked.append
        self._plan = plan
        self._stops = plan.stops if plan is not None else {} if record else None
        self._buffers = [None] * (len(plan.groups) if plan else 0)
        self._addresses = [0] * len(self._buffers)
        self.keep: dict[int, NDArray] = {}

    def end(self) -> None:
        """No pass follows a plan any more."""
        self._stops = None

    def _at(self, address: int) -> None:
        self.calls += 1
        assert self._stops is not None
        stop = self._stops[address]
        for change in stop.changes:
            self._change(address, change)
        for read in stop.reads:
            tensor = read.tensor
            size = tensor.nb[3]
            target = self._addresses[read.group]
            if not target:
                buffer = np.empty((self._plan.groups[read.group][1], size), dtype=np.uint8)  # type: ignore[union-attr]
                self._buffers[read.group] = buffer
                target = self._addresses[read.group] = buffer.ctypes.data
            if read.host:
                ctypes.memmove(target + read.row * size, tensor.data, size)
            else:
                self._native.ggml.ggml_backend_tensor_get(read.address, target + read.row * size, 0, size)

    def _change(self, address: int, change: Change) -> None:
        tensor = Tensor.from_address(address)
        rows, columns = tensor.ne[1], tensor.ne[0]
        if not rows:
            return
        size = tensor.nb[1] * rows
        if is_host(self._native, tensor):
            value = np.ctypeslib.as_array((ctypes.c_float * (rows * columns)).from_address(tensor.data)).reshape(rows, columns)
            changed = change(self, value)
            if changed is not None:
                value[:] = changed
            return
        value = np.empty((rows, columns), dtype=np.float32)
        self._native.ggml.ggml_backend_tensor_get(address, value.ctypes.data, 0, size)
        changed = change(self, value)
        if changed is not None:
            changed = np.ascontiguousarray(changed, dtype=np.float32)
            self._native.ggml.ggml_backend_tensor_set(address, changed.ctypes.data, 0, size)

    def values(self) -> dict[Key, NDArray]:
        """What was read in the last pass, each [..., columns], sizes from last to first as in `shape`."""
        result: dict[Key, NDArray] = {}
        assert self._plan is not None
        views: list[NDArray | None] = []
        for buffer, (kind, rows, shape) in zip(self._buffers, self._plan.groups):
            if buffer is None:
                views.append(None)
                continue
            numbers = buffer.view(NUMBERS.get(kind, np.float32))
            views.append(numbers.reshape(rows, *shape[3:0:-1], -1) if numbers.size else numbers.reshape(rows, 0))
        for read in self._plan.reads:
            view = views[read.group]
            if view is not None:
                result[read.key] = view[read.row]
        return result
