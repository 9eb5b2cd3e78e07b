"""The end of a model's graph on other inputs: from the residual stream to logits, by llama.cpp's own operations and weights.

The nodes after the last layer are copied into a small graph of mav's own, for any number of rows, and computed on the CPU.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp.graph import Graph, Node
from openmav.backends.llamacpp.native import CPU_DEVICE, F32, I32, Native, Tensor, arena
from openmav.backends.llamacpp.tap import is_host
from openmav.errors import EngineError

ROOM = 64  # tensors of a small graph
KEPT = 4  # small graphs that are kept
WEIGHTS = (".weight", ".bias", ".scale")
SELECTION = "GET_ROWS"  # of the tokens whose logits are wanted: here all rows are
BY_ROW = frozenset({"RMS_NORM", "NORM", "L2_NORM", "MUL", "ADD", "SUB", "DIV", "SCALE", "UNARY", "MUL_MAT", "CLAMP", "CONT"})


class UnreadableError(Exception):
    """The end of the graph can't be computed on its own; the text says why."""


class Small:
    """A graph of a few tensors with one input [rows, columns], and its memory."""

    def __init__(self, cpu: Cpu, kind: int, columns: int, rows: int, build: Callable[[Any, int], int]) -> None:
        ggml = cpu.native.ggml
        self.cpu, self.rows = cpu, rows
        size = ROOM * int(ggml.ggml_tensor_overhead()) + int(ggml.ggml_graph_overhead_custom(ROOM, False))
        self._arena = arena(cpu.native, size)
        self._allocator = ggml.ggml_gallocr_new(ggml.ggml_backend_get_default_buffer_type(cpu.handle))
        self._free = weakref.finalize(self, _free, ggml, self._allocator, self._arena)
        self._input = ggml.ggml_new_tensor_4d(self._arena, kind, columns, rows, 1, 1)
        Tensor.from_address(self._input).flags |= 1  # an input: its memory is filled before
        self._output = build(self._arena, self._input)
        Tensor.from_address(self._output).flags |= 2
        self._graph = ggml.ggml_new_graph_custom(self._arena, ROOM, False)
        ggml.ggml_build_forward_expand(self._graph, self._output)
        if not ggml.ggml_gallocr_alloc_graph(self._allocator, self._graph):
            raise UnreadableError("there is no memory for it")

    def __call__(self, rows: NDArray) -> NDArray[np.float32]:
        """[rows, columns] -> [rows, columns of the output]."""
        ggml = self.cpu.native.ggml
        rows = np.ascontiguousarray(rows)
        ggml.ggml_backend_tensor_set(self._input, rows.ctypes.data, 0, rows.nbytes)
        code = ggml.ggml_backend_graph_compute(self.cpu.handle, self._graph)
        if code:
            raise EngineError(f"llama.cpp can't compute its head alone (code {code})")
        tensor = Tensor.from_address(self._output)
        result = np.empty((self.rows, tensor.ne[0]), dtype=np.float32)
        ggml.ggml_backend_tensor_get(self._output, result.ctypes.data, 0, result.nbytes)
        return result


def _free(ggml: Any, allocator: Any, context: Any) -> None:
    ggml.ggml_gallocr_free(allocator)
    ggml.ggml_free(context)


class Cpu:
    """ggml's backend for the CPU, with so many threads."""

    def __init__(self, native: Native, threads: int) -> None:
        ggml = native.ggml
        self.native = native
        self.handle = ggml.ggml_backend_init_by_type(CPU_DEVICE, None)
        if not self.handle:
            raise UnreadableError("llama.cpp has no backend for the CPU")
        self._end = weakref.finalize(self, ggml.ggml_backend_free, self.handle)
        registry = ggml.ggml_backend_dev_backend_reg(ggml.ggml_backend_get_device(self.handle))
        address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
        if address:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(address)(self.handle, threads)


class Weight:
    """One weight of the model, by the address of its tensor."""

    def __init__(self, cpu: Cpu, address: int) -> None:
        self.cpu = cpu
        self.address = address
        self.columns, self.rows = Tensor.from_address(address).ne[0], Tensor.from_address(address).ne[1]
        self._products: dict[int, Small] = {}
        self._lookups: dict[int, Small] = {}

    def vector(self) -> NDArray[np.float32]:
        """All its numbers, where they are fp32."""
        tensor = Tensor.from_address(self.address)
        if tensor.type != F32:
            raise UnreadableError("a weight of the final norm is not fp32")
        result = np.empty(tensor.nb[3] // 4, dtype=np.float32)
        self.cpu.native.ggml.ggml_backend_tensor_get(self.address, result.ctypes.data, 0, result.nbytes)
        return result

    def times(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """x [n, columns] times its rows: [n, rows], as llama.cpp multiplies them."""
        small = self._products.get(len(x)) or Small(self.cpu, F32, self.columns, len(x), self._product)
        self._products = _kept(self._products, len(x), small)
        return small(x.astype(np.float32, copy=False))

    def look_up(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[n, columns] fp32: these rows."""
        small = self._lookups.get(len(ids)) or Small(self.cpu, I32, len(ids), 1, self._lookup)
        self._lookups = _kept(self._lookups, len(ids), small)
        small.rows = len(ids)
        return small(np.array([ids], dtype=np.int32))

    def _product(self, context: Any, taken: int) -> int:
        rows = Tensor.from_address(taken).ne[1]
        return node(self.cpu.native, context, "MUL_MAT", (self.address, taken), self.rows, rows)

    def _lookup(self, context: Any, taken: int) -> int:
        return int(self.cpu.native.ggml.ggml_get_rows(context, self.address, taken))


def _kept(known: dict[int, Small], key: int, small: Small) -> dict[int, Small]:
    rest = {other: one for other, one in known.items() if other != key}
    return {**dict(list(rest.items())[-(KEPT - 1) :]), key: small}


def node(native: Native, context: Any, op: str, sources: Sequence[int], columns: int, rows: int, params: bytes = b"") -> int:
    """A tensor that is the result of an operation."""
    address: int = native.ggml.ggml_new_tensor_4d(context, F32, columns, rows, 1, 1)
    tensor = Tensor.from_address(address)
    tensor.op = next(code for code in range(256) if native.op_name(code) == op)
    for at, source in enumerate(sources):
        tensor.src[at] = source
    ctypes.memmove(ctypes.addressof(tensor) + Tensor.op_params.offset, params, len(params))
    return address


class Tail:
    """From the residual stream after the last layer to logits. Raises UnreadableError."""

    def __init__(self, native: Native, graph: Graph, nodes: Sequence[int], threads: int) -> None:
        self.native = native
        self.cpu = Cpu(native, threads)
        chosen = [graph.nodes[index] for index in nodes]
        self.steps = [_step(native, graph, node) for node in chosen if node.op != SELECTION]
        self.columns = self.steps[0].columns_in
        self._small: dict[int, Small] = {}
        self._lock = threading.Lock()

    def logits(self, streams: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, width] -> [n, vocab]."""
        with self._lock:
            small = self._small.get(len(streams)) or Small(self.cpu, F32, self.columns, len(streams), self._build)
            self._small = _kept(self._small, len(streams), small)
            return small(streams)

    def _build(self, context: Any, taken: int) -> int:
        rows = Tensor.from_address(taken).ne[1]
        for step in self.steps:
            taken = node(self.native, context, step.op, step.with_input(taken), step.columns, rows, step.params)
        return taken


class Step:
    """One operation of the tail: on the result before it and, for most, a weight."""

    def __init__(self, op: str, sources: Sequence[int | None], columns: int, columns_in: int, params: bytes) -> None:
        self.op, self.sources, self.columns, self.columns_in, self.params = op, sources, columns, columns_in, params

    def with_input(self, taken: int) -> list[int]:
        return [taken if source is None else source for source in self.sources]

    @property
    def weight(self) -> int | None:
        """The address of the weight."""
        return next((source for source in self.sources if source is not None), None)

    def numbers(self) -> NDArray[np.float32]:
        """The parameters as floats."""
        return np.frombuffer(self.params, dtype=np.float32)


def on_cpu(native: Native, tensor: Tensor) -> bool:
    """Whether the CPU can compute with it, in whatever order its numbers are."""
    if is_host(native, tensor):
        return True
    ggml = native.ggml
    device = ggml.ggml_backend_buft_get_device(ggml.ggml_backend_buffer_get_type(tensor.buffer))
    return bool(device) and ggml.ggml_backend_dev_type(device) == CPU_DEVICE


def _step(native: Native, graph: Graph, node: Node) -> Step:
    if node.op not in BY_ROW:
        raise UnreadableError(f"{node.op} stands between the stream and the logits")
    sources: list[int | None] = []
    columns_in = 0
    for source in graph.sources(node):
        if not source.is_leaf:
            sources.append(None)
            columns_in = source.shape[0]
        elif not source.name.endswith(WEIGHTS):
            raise UnreadableError(f"an input of the graph ({source.name}) has a part in the logits")
        elif not on_cpu(native, Tensor.from_address(source.address)):
            raise UnreadableError("the weights of the head are on another device")
        else:
            sources.append(source.address)
    params = bytes(Tensor.from_address(node.address).op_params)
    return Step(node.op, sources, node.shape[0], columns_in, params)
