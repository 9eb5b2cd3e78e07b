"""What llama.cpp calls at each node of its graph: it says where the computation is to stop, and copies or changes values there.

A stop costs a few microseconds, so values are read at as few of them as their memory allows (see `Plan`). Nothing is computed in the
callback, and no exception leaves it: with one, llama.cpp would go on with wrong numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Container, Mapping, Sequence
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

    A value can be read from the node where it is computed until another is written into its memory (Graph.last_read); so stops are
    chosen as in interval stabbing: each at the last moment of a value that no earlier stop covers. `exact` stops at each node.
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
        self._spans: list[tuple[int, int]] = []  # a node, and where it is read
        reads = {key: self._read(native, key, graph.nodes[index]) for key, index in sorted(wanted.items())}  # rows in the layers' order
        at = -1
        for end, index, key in spans:
            if at < index:
                at = end
            self._spans.append((index, at))
            self._stop(at).reads.append(reads[key])
            if key[0] == SCORES:  # their mask is an input of the graph, and there as long as they are
                rows = graph.nodes[layers[key[1]].rows or 0]
                self._stop(at).reads.append(self._read(native, (MASK, *key[1:]), graph.at(rows.sources[1])))
        self.places = {read.key: (read.group, read.row) for stop in self.stops.values() for read in stop.reads}
        self.whole = self._whole(len(layers))

    def _whole(self, layers: int) -> dict[str, int]:
        """{site: its group}, where that has one row a layer, in order."""
        by_site: dict[str, dict[int, list[int]]] = {}
        for (site, layer, _), (group, row) in self.places.items():
            by_site.setdefault(site, {}).setdefault(group, []).append(layer if layer == row else -1)
        return {site: group for site, groups in by_site.items() for group, rows in groups.items() if sorted(rows) == list(range(layers))}

    def holds_in(self, graph: Graph) -> bool:
        """Whether all is read in time in another graph of the same operations too."""
        return all(at <= graph.last_read(graph.nodes[index]) for index, at in self._spans)

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


class _Recorder:
    """Notes all nodes that it is asked about, and stops at none."""

    def __init__(self) -> None:
        self.addresses: list[int] = []

    def __contains__(self, address: object) -> bool:
        self.addresses.append(address)  # type: ignore[arg-type]
        return False


def is_host(native: Native, tensor: Tensor) -> bool:
    """Whether the tensor's numbers are in this process's own memory."""
    buffer = tensor.buffer or (Tensor.from_address(tensor.view_src).buffer if tensor.view_src else None)
    return not buffer or bool(native.ggml.ggml_backend_buffer_is_host(buffer))


class Tap:
    """One context's callback. Without a plan nothing stops; a pass can be recorded instead, to learn its graph."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.start = 0  # position of the first token of the pass
        self.error: Exception | None = None
        self.recorded: list[int] = []  # the nodes of a recorded pass
        self.stopped = 0  # stops of the pass
        self.keep: dict[int, NDArray] = {}  # for changes
        self.homes: Any = None  # a Homes: where the tensors of its graph have their numbers, if not in memory of llama.cpp's
        self._plan: Plan | None = None
        self._stops: Mapping[int, Stop] = {}
        self._buffers: list[NDArray[np.uint8] | None] = []
        self._addresses: list[int] = []
        self._sizes: list[int] = []  # bytes of a row of each buffer
        self._watched: list[Container[int]] = [()]  # the nodes at which the pass stops
        self.callback = native.llama.ggml_backend_sched_eval_callback(self._make())

    def _make(self) -> Callable[[int, bool, object], bool]:
        watched = self._watched

        def call(address: int, ask: bool, _data: object) -> bool:  # a thousand times a token
            try:
                if ask:
                    return address in watched[0]
                self._at(address)
            except Exception as error:
                self.error = error
            return True

        return call

    def begin(self, plan: Plan | None, start: int) -> None:
        """The next pass follows the plan; None: it is recorded."""
        self.start, self.error, self.stopped = start, None, 0
        self._plan = plan
        self.keep = {}
        if plan is None:
            recorder = _Recorder()
            self.recorded, self._watched[0] = recorder.addresses, recorder
        else:
            self._stops = plan.stops
            self._watched[0] = plan.stops
            self._buffers = [None] * len(plan.groups)
            self._addresses = [0] * len(plan.groups)
            self._sizes = [0] * len(plan.groups)

    def leave_homes(self) -> None:
        if self.homes is not None:
            self.homes.leave()
        self.homes = None

    def end(self) -> None:
        """No pass follows a plan any more."""
        self._watched[0] = ()

    def _at(self, address: int) -> None:
        self.stopped += 1
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
                self._sizes[read.group] = size
            elif size != self._sizes[read.group]:  # it would be written beyond the buffer
                raise ValueError(f"{read.key} has another size than those read with it")
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

    def values(self) -> Values:
        """What was read in the last pass."""
        assert self._plan is not None
        arrays: list[NDArray | None] = []
        for buffer, (kind, rows, shape) in zip(self._buffers, self._plan.groups):
            if buffer is not None:
                buffer = buffer.view(NUMBERS.get(kind, np.float32))
                buffer = buffer.reshape(rows, *shape[3:0:-1], -1) if buffer.size else buffer.reshape(rows, 0)
            arrays.append(buffer)
        return Values(self._plan, arrays)


class Values:
    """The values of a pass, each [..., columns], sizes from last to first as in a node's `shape`."""

    def __init__(self, plan: Plan, arrays: Sequence[NDArray | None]) -> None:
        self._plan, self._arrays = plan, arrays

    def __getitem__(self, key: Key) -> NDArray:
        group, row = self._plan.places[key]
        array = self._arrays[group]
        assert array is not None
        value: NDArray = array[row]
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._plan.places

    def same_as(self, other: Values) -> bool:
        """Whether all of it is the same to the bit."""
        pairs = zip(self._arrays, other._arrays, strict=True)
        return all(a is b if a is None or b is None else a.tobytes() == b.tobytes() for a, b in pairs)

    def together(self, site: str) -> NDArray | None:
        """[layers, ..., columns]: a site that each layer has once, all alike; None where that is not so."""
        group = self._plan.whole.get(site)
        return None if group is None else self._arrays[group]


class _Nothing(Values):
    """Of a pass in which nothing was read."""

    def __init__(self) -> None:
        self._arrays = []

    def __contains__(self, _key: object) -> bool:
        return False

    def together(self, _site: str) -> None:
        return None


NOTHING = _Nothing()
