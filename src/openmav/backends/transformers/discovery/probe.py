"""Which modules of a layer move information between positions, tested by changing one position of the residual stream.

The layer runs twice on its input from the trial. In the second run one position of the residual stream is changed, and after each
addition to the residual stream all other positions are restored. So the input of a sub-block differs at that position only, and it
mixes positions if its output differs elsewhere. Both runs are in fp32 where the layer's weights can be converted, which also proves
in fp32 that the layer's output is the sum that the trial traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from openmav.backends.transformers.discovery.linear_form import Coefficient, Node
from openmav.backends.transformers.discovery.recorder import TOKENS, LayerTrial, modules_inside
from openmav.backends.transformers.discovery.roles import is_linear
from openmav.backends.transformers.discovery.trace import Tracer
from openmav.backends.transformers.discovery.trial import evaluating
from openmav.backends.transformers.discovery.values import first_tensor, given, with_given
from openmav.system.memory import out_of_memory

CHANGED = 3  # the changed position; earlier ones can't depend on it
ROUNDING = 16  # times the last bit of the float type: a smaller change is rounding, for example where tokens are grouped by experts
NOISE = 3  # times the change of earlier positions counts as none, for example where one scale quantises the activations of all positions
MOST_BYTES = 2**32  # of a layer's weights in fp32


@dataclass
class Probe:
    """What changed, by module path. `reach`: how many positions after the changed one a module's output differs; 0: none."""

    reach: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)  # the same of the module's input
    error: float | None = None  # of the sum in fp32, relative to what is added; None: it could not be tried in fp32
    allowed: float = 0.0

    @property
    def mixers(self) -> list[str]:
        """The outermost modules that mix positions themselves, in the order in which they finished."""
        mixing = [path for path, reach in self.reach.items() if reach and not self.inputs[path]]
        return [path for path in mixing if not any(path.startswith(f"{other}.") for other in mixing)]


_Recorded: TypeAlias = dict[str, tuple[Tensor | None, Tensor | None]]  # a module's input and output, [tokens, columns] each


def probe(recorded: LayerTrial) -> Probe | None:
    """None where the layer can't be run on its own."""
    if recorded.call is None or recorded.stream_in is None:
        return None
    try:
        try:
            run, plain, changed = _runs(recorded, weights_in_fp32(recorded.layer))
        except Exception as error:
            if not out_of_memory(error):
                raise
            run, plain, changed = _runs(recorded, None)  # not enough memory for a layer in fp32
    except Exception as error:  # a layer that needs more than its own arguments
        if out_of_memory(error):
            raise
        return None
    result = Probe(error=run.error, allowed=run.allowed)
    for path, (inputs, outputs) in plain.items():
        after = changed.get(path, (None, None))
        result.inputs[path] = _reach(inputs, after[0], run.rounding)
        result.reach[path] = _reach(outputs, after[1], run.rounding)
    return result


def _runs(recorded: LayerTrial, weights: dict[str, Tensor] | None) -> tuple[_Run, _Recorded, _Recorded]:
    """The inputs and outputs of the modules, unchanged and with one position changed."""
    with torch.no_grad(), evaluating(recorded.layer):
        run = _Run(recorded, weights)
        plain, sums = run(None)
        return run, plain, run(sums)[0]


class _Run:
    """Runs one layer on its own, with `weights` in place of its own; None: with its own."""

    def __init__(self, recorded: LayerTrial, weights: dict[str, Tensor] | None) -> None:
        assert recorded.call is not None
        self.recorded = recorded
        self.weights = weights
        args, kwargs = recorded.call if weights is None else _in_fp32(recorded.call)
        self.args, self.kwargs = args, kwargs
        self.rounding = ROUNDING * torch.finfo(given(args, kwargs).dtype).eps
        self.error: float | None = None
        self.allowed = 0.0

    def __call__(self, sums: list[Tensor] | None) -> tuple[_Recorded, list[Tensor]]:
        """The input and output of each module, and each sum of the residual stream. `sums`: change one position, restore the rest."""
        stream: Tensor = given(self.args, self.kwargs).clone(memory_format=torch.contiguous_format)
        if sums is not None:
            positions = _positions(stream)
            positions[CHANGED] = positions[-1].flip(-1)
        args, kwargs = with_given(self.args, self.kwargs, stream)
        tracer, traced_sums = Tracer(TOKENS, stream.shape[-1]), list[Tensor]()
        tracer.on_sum = (lambda node: traced_sums.append(node.tensor.clone())) if sums is None else partial(_restore, iter(sums))
        recorded: _Recorded = {}
        layer, before = self.recorded.layer, stream.clone()
        tracer.begin(layer, stream, (), (self.weights or {}).values())
        renewed = {term.path for term in self.recorded.terms if term.renews}
        with _watching(layer, recorded, lambda path, x: tracer.take_for_stream(x) if path in renewed else None), tracer:
            output = layer(*args, **kwargs) if self.weights is None else functional_call(layer, self.weights, args, kwargs)
        if sums is None and self.weights is not None:
            self._prove(before, recorded, first_tensor(output))
        return recorded, traced_sums

    def _prove(self, stream_in: Tensor, recorded: _Recorded, stream_out: Tensor | None) -> None:
        """Compare the sum that the trial traced with the layer's output."""
        parts: list[tuple[Tensor, Coefficient]] = [(stream_in, self.recorded.carry)]
        for term in self.recorded.terms:
            outputs = torch.ones_like(stream_in) if term.constant else recorded.get(term.path or "", (None, None))[1]
            if stream_out is None or outputs is None or outputs.numel() != stream_out.numel():
                return
            parts.append((outputs, term.coefficient))
        if stream_out is None:
            return
        width = stream_in.shape[-1]
        flat = [v.reshape(-1, width).double() * (c.to(v.device).double() if isinstance(c, Tensor) else c) for v, c in parts]
        left = (stream_out.reshape(-1, width).double() - sum(flat)).abs() / (sum(x.abs() for x in flat) + torch.finfo(torch.float64).tiny)
        self.error = float(left.max())
        self.allowed = (self.recorded.steps + 1) * max(
            torch.finfo(value.dtype).eps for value in (stream_out, *(value for value, _ in parts))
        )


def _restore(sums: Iterator[Tensor], node: Node) -> None:
    """Restore all positions but the changed one."""
    kept = next(sums).clone()
    _positions(kept)[CHANGED] = _positions(node.tensor)[CHANGED]
    node.tensor.copy_(kept)


def _positions(x: Tensor) -> Tensor:
    """A view whose first axis is that of the tokens."""
    return x.movedim(x.shape.index(TOKENS), 0)


def _by_position(x: Tensor | None) -> Tensor | None:
    """[tokens, columns], a copy; None where there is not one row per token."""
    if x is None or not x.is_floating_point() or TOKENS not in x.shape[:2] or (x.ndim > 2 and x.shape[0] not in (1, TOKENS)):
        return None
    return _positions(x).reshape(TOKENS, -1).clone()


def _reach(before: Tensor | None, after: Tensor | None, rounding: float) -> int:
    """The distance from the changed position to the last one that differs."""
    if before is None or after is None or before.shape != after.shape:
        return 0
    tiny = torch.finfo(torch.float32).tiny
    apart = (after - before).float().norm(dim=-1) / (before.float().norm(dim=-1) + tiny)
    changed = apart[CHANGED + 1 :] > max(rounding, NOISE * float(apart[:CHANGED].max()))
    return max((int(at) + 1 for at in changed.nonzero()), default=0)


@contextmanager
def _watching(layer: nn.Module, recorded: _Recorded, on_output: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Record the inputs and outputs of the modules inside; of a module that runs more than once, the last run."""
    inputs: dict[str, Tensor | None] = {}

    def enter(path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[path] = _by_position(first_tensor(given(args, kwargs)))

    def leave(path: str, _module: nn.Module, _args: object, output: object) -> None:
        tensor = first_tensor(output)
        recorded[path] = inputs.get(path), _by_position(tensor)
        if tensor is not None:
            on_output(path, tensor)

    handles = []
    try:
        for path, module in modules_inside(layer):
            handles.append(module.register_forward_pre_hook(partial(enter, path), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(leave, path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def weights_in_fp32(layer: nn.Module) -> dict[str, Tensor] | None:
    """The layer's weights that are not fp32, converted to it; None where some are packed or offloaded, or they are too large."""
    result: dict[str, Tensor] = {}
    if any(is_linear(module) and not any(True for _ in module.parameters()) for module in layer.modules()):
        return None
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        plain = tensor.dtype in (torch.float32, torch.float16, torch.bfloat16) and type(tensor) in (Tensor, nn.Parameter)
        if tensor.is_meta or (not plain and (isinstance(tensor, nn.Parameter) or tensor.ndim > 1)):
            return None
        if plain and tensor.dtype != torch.float32:
            result[name] = tensor.detach()
    if sum(4 * tensor.numel() for tensor in result.values()) > MOST_BYTES:
        return None
    return {name: tensor.float() for name, tensor in result.items()}


def _in_fp32(value: Any) -> Any:
    """The same arguments with float tensors in fp32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(_in_fp32(entry) for entry in value)
    return {name: _in_fp32(entry) for name, entry in value.items()} if type(value) is dict else value
