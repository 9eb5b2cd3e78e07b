"""One forward pass over a few tokens, during which every module inside the layers shows samples of what it takes and gives.

Samples are [tokens, columns]: all tokens, evenly spaced columns of the residual width, so that a trial of a big model stays
small. Hooks are gone when `trial` returns, also after an error, and the model is left as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends._hf._roles import has_matrix, is_list
from openmav.backends._hf.quantised import without_gradients

TOKENS = 14
COLUMNS = 96
MANY = 12  # a list this long inside a layer holds experts: nobody looks into each of them


@dataclass
class Call:
    """What one module took and gave in one layer; `order` counts finished calls, `times` how often it ran there."""

    module: nn.Module
    given: Tensor | None
    made: Tensor | None
    order: int
    times: int = 1


@dataclass
class LayerTrial:
    """A layer's own input and output, and the calls inside it by path; `came_in` is None if no tensor of the residual width did."""

    layer: nn.Module
    came_in: Tensor | None = None
    went_out: Tensor | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    eps: float = 0.0  # of the coarsest float type seen in it


@dataclass
class Trial:
    layers: list[LayerTrial]  # in the order in which they ran
    after: list[Call]  # modules outside the layers that started after the last layer


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first entry of a tuple, list or dict if that is one."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) else None


class _Recorder:
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.width = 0  # of the residual stream; known when the first layer starts
        self.paths = {id(layer): {id(m): name for name, m in _inside(layer)} for layer in layers}
        self.done: list[LayerTrial] = []
        self.now: LayerTrial | None = None
        self.after: list[Call] = []
        self.order = 0

    def sample(self, value: Any) -> Tensor | None:
        """[tokens, columns], a copy; None for anything that is not a residual-wide float tensor of all tokens."""
        tensor = first_tensor(value)
        if tensor is None or tensor.ndim < 2 or not tensor.is_floating_point():
            return None
        if tensor.shape[-1] != self.width or tensor.numel() != TOKENS * self.width:
            return None
        if self.now is not None:
            self.now.eps = max(self.now.eps, torch.finfo(tensor.dtype).eps)
        return tensor.reshape(TOKENS, self.width)[:, :: max(1, self.width // COLUMNS)].clone()

    def enter_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.now = LayerTrial(layer)
        stream = first_tensor(_input(args, kwargs))
        if not self.width and stream is not None and stream.ndim == 3:
            self.width = stream.shape[-1]
        self.now.came_in = self.sample(stream)

    def leave_layer(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.now is not None and self.now.layer is layer:
            self.now.went_out = self.sample(output)
            self.done.append(self.now)
            self.after.clear()
            self.now = None

    def inside(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.order += 1
        if self.now is None:
            return
        path = self.paths[id(self.now.layer)].get(id(module))
        if path is None:
            return
        before = self.now.calls.get(path)
        times = before.times + 1 if before else 1
        self.now.calls[path] = Call(module, self.sample(_input(args, kwargs)), self.sample(output), self.order, times)

    def outside(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.now is None and self.done:
            self.after.append(Call(module, self.sample(_input(args, kwargs)), None, self.order))


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first positional argument, else `hidden_states`, else the first one by name."""
    if args:
        return args[0]
    return kwargs.get("hidden_states", next(iter(kwargs.values()), None))


def _inside(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules inside one, with their paths; long lists (experts) are left out."""
    for name, child in module.named_children():
        if is_list(child):
            if len(child) <= MANY:  # type: ignore[arg-type]
                yield from _inside(child, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", child
        yield from _inside(child, f"{prefix}{name}.")


def _around(module: nn.Module, layers: set[int]) -> Iterator[nn.Module]:
    """All modules that stand outside the layers, also those that a layer uses as well."""
    for child in module.children():
        if id(child) not in layers:
            yield child
            yield from _around(child, layers)


@contextmanager
def _hooks(model: nn.Module, layers: Sequence[nn.Module], recorder: _Recorder) -> Iterator[None]:
    """Put the recorder's hooks on; take them off on every way out."""
    handles = []
    listened = {id(m): m for layer in layers for _, m in _inside(layer)}
    norms = {id(m): m for m in _around(model, {id(layer) for layer in layers}) if not has_matrix(m) and not is_list(m)}
    try:
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(recorder.enter_layer, with_kwargs=True))
            handles.append(layer.register_forward_hook(recorder.leave_layer))
        for module in listened.values():
            handles.append(module.register_forward_hook(recorder.inside, with_kwargs=True))
        for module in norms.values():
            handles.append(module.register_forward_pre_hook(recorder.outside, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout for a moment; each module gets its own training flag back."""
    training = [m for m in model.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def token_ids(vocab: int, avoid: frozenset[int]) -> Tensor:
    """[1, TOKENS] always the same for a vocabulary, and none of those to avoid; the global random state is not touched."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, max(vocab, 1), (TOKENS * 8,), generator=generator).tolist()
    good = [token for token in drawn if token not in avoid][:TOKENS]
    return torch.tensor([(good + drawn)[:TOKENS]])


def trial(model: nn.Module, layers: Sequence[nn.Module], ids: Tensor) -> Trial:
    """Run `ids` [1, TOKENS] through the model without a cache and return what the modules showed, in fp64 on the CPU.

    Raises whatever the model raises.
    """
    recorder = _Recorder(layers)
    wanted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in wanted else {}
    if "logits_to_keep" in wanted:
        extra["logits_to_keep"] = 1
    with without_gradients(model), _evaluating(model), _hooks(model, layers, recorder):
        model(input_ids=ids, **extra)
    for shown in recorder.done:
        shown.came_in, shown.went_out = _plain(shown.came_in), _plain(shown.went_out)
        for call in shown.calls.values():
            call.given, call.made = _plain(call.given), _plain(call.made)
    for call in recorder.after:
        call.given = _plain(call.given)
    return Trial(recorder.done, recorder.after)


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to("cpu", torch.float64)
