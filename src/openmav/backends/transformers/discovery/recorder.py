"""What a trial records: the hooks of each layer, and the layer's output followed back to what was added to the residual stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends.transformers.discovery.linear_form import Coefficient, LinearForm, Node, multiplied, number
from openmav.backends.transformers.discovery.roles import has_matrix, is_linear, is_list
from openmav.backends.transformers.discovery.trace import Tracer
from openmav.backends.transformers.discovery.values import choice_of_experts, experts_scored, first_tensor, given, tensors_in, with_given

TOKENS = 14
MANY = 12  # a list longer than this inside a layer holds experts, which are not examined one by one


@dataclass
class Added:
    """A term of a layer's output: `coefficient` times the output of the module at `path`; None: computed by the layer's own code.

    With `constant` it is one vector for all tokens: `coefficient` itself, [width]. `marks` are those of trace.py. `linear` is the path
    of the last linear map before it, where there is exactly one, and `factor` the constant by which that map's output is multiplied
    afterwards; None: no constant, for example behind a norm. `renews`: the term is a norm of the layer's own input.
    """

    path: str | None
    coefficient: Coefficient
    marks: int = 0
    linear: str | None = None
    factor: Coefficient | None = None
    renews: bool = False
    constant: bool = False


@dataclass
class LayerTrial:
    """What the trial recorded of one layer. `stream_in` and `stream_out` are [tokens, width], None where they are not one vector per token.

    `error` is the largest difference between the output and carry * input + terms, relative to the sizes of what is added;
    `allowed` is the error that the model's own rounding explains.
    """

    layer: nn.Module
    stream_in: Tensor | None = None
    stream_out: Tensor | None = None
    carry: Coefficient = 0.0
    terms: list[Added] = field(default_factory=list)
    error: float = 0.0
    allowed: float = 0.0
    steps: int = 0  # how often the sum was rounded
    finite: bool = True
    times: Counter[str] = field(default_factory=Counter)  # how often each module inside ran
    row_owners: list[str] = field(default_factory=list)  # modules that computed attention weights
    choosers: list[str] = field(default_factory=list)  # modules that selected the largest of some numbers
    experts: list[str] = field(default_factory=list)  # modules that were called with a selection of experts
    routers: dict[str, int] = field(default_factory=dict)  # modules that scored experts, with the number of experts per token
    call: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # its arguments, kept for one layer of each kind
    normed: bool = False  # whether the output is the output of a norm

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for layers that are built alike and ran the same modules."""
        paths = [(term.path, term.marks, term.path and type(self.layer.get_submodule(term.path))) for term in self.terms]
        return (type(self.layer), *paths, *self.row_owners, self.stream_in is None, self.stream_out is None)


class Recorder:
    """The hooks of a trial."""

    def __init__(self, layers: Sequence[nn.Module], tracer: Tracer | None) -> None:
        self.tracer = tracer
        self.width = 0  # of the residual stream; known when the first layer starts
        self.paths = {id(layer): {id(m): name for name, m in modules_inside(layer)} for layer in layers}
        self.done: list[LayerTrial] = []
        self.now: LayerTrial | None = None
        self.after: list[tuple[nn.Module, Tensor | None]] = []
        self.source: Node | None = None
        self.taken: dict[str, Node] = {}  # the inputs of the modules inside
        self.seen: set[Any] = set()
        self.tracing = ExitStack()  # holds the tracer's dispatch mode, which is on inside a layer only: each operation under it is slow

    def stream(self, value: Any) -> Tensor | None:
        """The first tensor of a value, if it has one vector per token, of the residual stream's width."""
        tensor = first_tensor(value)
        if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
            return None
        return tensor if tensor.shape[-1] == self.width and tensor.numel() == TOKENS * self.width else None

    def enter_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tracing.close()
        self.now = LayerTrial(layer)
        entering = first_tensor(given(args, kwargs))
        if not self.width and entering is not None and entering.ndim == 3:
            self.width = entering.shape[-1]
        stream = self.stream(entering)
        if stream is not None:
            self.now.stream_in = stream.reshape(TOKENS, self.width).clone()
            self.now.call = with_given(args, kwargs, stream.clone())
        if self.tracer is not None:
            if stream is None:
                self.source = self.tracer.begin(layer, None, ())
            else:
                self.tracer.width = self.width
                self.taken.clear()
                self.source = self.tracer.begin(layer, stream, [t for t in tensors_in((args, kwargs)) if t is not entering])
            self.tracing.enter_context(self.tracer)

    def leave_layer(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        now = self.now
        if now is None or now.layer is not layer:
            return
        self.tracing.close()
        leaving = self.stream(output)
        now.stream_out = None if leaving is None else leaving.reshape(TOKENS, self.width).clone()
        tracer, self.now = self.tracer, None
        if tracer is not None and tracer.recording:
            paths = self.paths[id(layer)]
            now.row_owners = [paths[id(m)] for m in tracer.row_owners if id(m) in paths]
            now.choosers = [paths[id(m)] for m in tracer.choosers if id(m) in paths]
            if leaving is not None and self.source is not None:
                _Follow(self, now, tracer, self.source).output(tracer.node(leaving))
            tracer.end()
        self.done.append(now)
        self.after.clear()
        if now.signature in self.seen:
            now.call = None
        self.seen.add(now.signature)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        path = self._path(module)
        if path is None or self.now is None:
            return
        if choice_of_experts(args, kwargs) is not None:
            self.now.experts.append(path)
        if self.tracer is not None and self.tracer.recording:
            self.tracer.stack.append(module)
            received = self.stream(given(args, kwargs))
            if received is not None:
                self.taken[path] = self.tracer.node(received)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        path = self._path(module)
        if path is None or self.now is None:
            return
        self.now.times[path] += 1
        if self.tracer is not None and self.tracer.recording:
            if self.tracer.stack and self.tracer.stack[-1] is module:
                self.tracer.stack.pop()
            tensor = first_tensor(output)
            if module in self.tracer.choosers and (count := experts_scored(tensor, TOKENS)):
                self.now.routers[path] = count
            if tensor is not None:
                self.tracer.module_output(path, tensor, linear=is_linear(module))

    def _path(self, module: nn.Module) -> str | None:
        return None if self.now is None else self.paths[id(self.now.layer)].get(id(module))

    def outside(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.now is None and self.done:
            received = self.stream(given(args, kwargs))
            self.after.append((module, None if received is None else received.reshape(TOKENS, self.width).clone()))


class _Follow:
    """Traces one layer's output back, while the layer's tensors are still in memory."""

    def __init__(self, recorder: Recorder, layer_trial: LayerTrial, tracer: Tracer, source: Node) -> None:
        self.recorder = recorder
        self.layer_trial = layer_trial
        self.tracer = tracer
        self.source = source

    def output(self, node: Node) -> None:
        """Fill in what the layer's output is the sum of."""
        layer_trial = self.layer_trial
        form = self.tracer.linear_form(node, self.source, self._captured)
        layer_trial.normed = any(self._is_norm(path) for path in self.tracer.outputs(node))
        layer_trial.steps = form.steps
        layer_trial.carry = _durable(form.carry, layer_trial.layer)
        layer_trial.terms = [self._added(node, coefficient) for node, coefficient in form.terms]
        if all(n.tensor.numel() == node.tensor.numel() or n.constant for n, _ in form.terms):
            self._check(form, node.value)

    def _captured(self, node: Node) -> bool:
        """Whether it is a module's output with one vector per token, so that a hook there can capture it."""
        return bool(self.tracer.outputs(node)) and node.tensor.shape[-1:] == (self.recorder.width,)

    def _added(self, node: Node, coefficient: Coefficient) -> Added:
        layer = self.layer_trial.layer
        if node.constant:
            rows = node.value.reshape(-1, node.value.shape[-1])
            if rows.shape[-1] == self.recorder.width and bool((rows == rows[:1]).all()):
                return Added(None, _durable(multiplied(number(rows[0]), coefficient), layer), constant=True)
        path = min(self.tracer.outputs(node), key=lambda p: (not has_matrix(layer.get_submodule(p)), p.count(".")), default=None)
        path = path if self._captured(node) else None
        maps = self._linear(node, 1.0)
        linear, factor = maps[0] if len(maps) == 1 else (None, None)
        factor = None if factor is None else _durable(multiplied(factor, coefficient), layer)
        renews = path is not None and self._is_norm(path) and self.recorder.taken.get(path) is self.source
        return Added(path, _durable(coefficient, layer), node.marks, linear, factor, renews)

    def _is_norm(self, path: str) -> bool:
        module = self.layer_trial.layer.get_submodule(path)
        return not has_matrix(module) and any(True for _ in module.parameters())

    def _linear(self, node: Node, factor: Coefficient | None) -> list[tuple[str, Coefficient | None]]:
        """The last linear maps before a value, each with the constant that its output was multiplied by; None: no constant."""
        layer = self.layer_trial.layer
        for path in self.tracer.outputs(node):
            if is_linear(layer.get_submodule(path)):
                return [(path, factor)]
        if node.kind == "made" and node.opaque:
            return []
        inputs = [(child, factor) for child in node.inputs]
        if node.kind == "sum":
            inputs = [(c, None if factor is None else multiplied(factor, f)) for c, f in zip(node.inputs, node.factors, strict=True)]
        elif node.kind == "scaled" and factor is not None:
            inputs = [(child, multiplied(factor, by)) for child, by in node.expanded()]
        elif node.kind == "made":
            inputs = [(child, None) for child in node.inputs]
        result: dict[str, Coefficient | None] = {}
        for child, by in inputs:
            if not child.constant and not child.in_stream and child.tensor.numel() == node.tensor.numel():
                result.update(self._linear(child, by))
        return list(result.items())

    def _check(self, form: LinearForm, output: Tensor) -> None:
        """Compare the sum of the terms with the layer's output, in fp64."""
        parts = [(self.source.value, form.carry), *((n.value, c) for n, c in form.terms)]
        width = self.recorder.width
        flat = [_double(value, width) * (c.to(value.device).double() if isinstance(c, Tensor) else c) for value, c in parts]
        wanted, total = _double(output, width), sum(flat)
        sizes = sum(x.abs() for x in flat)
        left = (wanted - total).abs() / (sizes + torch.finfo(torch.float64).tiny)
        self.layer_trial.finite = bool(wanted.isfinite().all()) and all(bool(x.isfinite().all()) for x in flat)
        self.layer_trial.error = float(left.max())
        self.layer_trial.allowed = (form.steps + 1) * form.eps


def _double(value: Tensor, width: int) -> Tensor:
    return value.reshape(-1, width).double()


def _durable(coefficient: Coefficient, layer: nn.Module) -> Coefficient:
    """The coefficient; a copy where it shares memory with a weight, which may be offloaded after the layer ran."""
    if not isinstance(coefficient, Tensor) or any(p.data_ptr() == coefficient.data_ptr() for p in layer.parameters() if not p.is_meta):
        return coefficient
    return coefficient.clone()


def modules_inside(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules inside one, with their paths; long lists (experts) are left out."""
    for name, child in module.named_children():
        if is_list(child):
            if len(child) <= MANY:  # type: ignore[arg-type]
                yield from modules_inside(child, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", child
        yield from modules_inside(child, f"{prefix}{name}.")
