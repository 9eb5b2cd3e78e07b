"""One forward pass over a few tokens, in which each layer's output is traced back to what was added to the residual stream.

Hooks are removed when `trial` returns, also after an error, and the model is unchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends.transformers.discovery.recorder import TOKENS, LayerTrial, Recorder, modules_inside
from openmav.backends.transformers.discovery.roles import has_matrix, is_list
from openmav.backends.transformers.discovery.trace import Tracer
from openmav.system.memory import out_of_memory


@dataclass
class Trial:
    layers: list[LayerTrial]  # in the order in which they ran
    after: list[tuple[nn.Module, Tensor | None]]  # modules outside the layers that ran after the last layer, and their inputs
    overwrites: bool = False  # whether the model wrote into outputs after they were returned
    untraced: str = ""  # why operations could not be traced; empty where they were


def _around(module: nn.Module, layers: set[int]) -> Iterator[nn.Module]:
    """All modules outside the layers, including those that a layer uses as well."""
    for child in module.children():
        if id(child) not in layers:
            yield child
            yield from _around(child, layers)


@contextmanager
def _hooks(model: nn.Module, layers: Sequence[nn.Module], recorder: Recorder) -> Iterator[None]:
    """Register the recorder's hooks, and always remove them."""
    handles = []
    hooked = {id(m): m for layer in layers for _, m in modules_inside(layer)}
    norms = {id(m): m for m in _around(model, {id(layer) for layer in layers}) if not has_matrix(m) and not is_list(m)}
    try:
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(recorder.enter_layer, with_kwargs=True))
            handles.append(layer.register_forward_hook(recorder.leave_layer))
        for module in hooked.values():
            handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(recorder.leave))
        for module in norms.values():
            handles.append(module.register_forward_pre_hook(recorder.outside, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context manager: evaluation mode inside it; each module's training flag is restored after it."""
    training = [m for m in model.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def token_ids(vocab: int, avoid: frozenset[int]) -> Tensor:
    """[1, TOKENS], always the same for a vocabulary, none of them in `avoid`; the global random state is unchanged."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, max(vocab, 1), (TOKENS * 8,), generator=generator).tolist()
    good = [token for token in drawn if token not in avoid][:TOKENS]
    return torch.tensor([(good + drawn)[:TOKENS]])


def trial(model: nn.Module, layers: Sequence[nn.Module], ids: Tensor) -> Trial:
    """Run `ids` [1, TOKENS] through the model without a cache, all positions through all layers, and return what was recorded.

    Raises whatever the model raises.
    """
    try:
        return _run(model, layers, ids, Tracer(TOKENS))
    except Exception as problem:  # operations that can't be traced, or a model that does not run at all: then the second run raises too
        if out_of_memory(problem):
            raise
        result = _run(model, layers, ids, None)
        result.untraced = f"its operations can't be traced ({type(problem).__name__})"
        return result


def _run(model: nn.Module, layers: Sequence[nn.Module], ids: Tensor, tracer: Tracer | None, *, again: bool = False) -> Trial:
    recorder = Recorder(layers, tracer)
    extra: Mapping[str, Any] = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    before = set(map(id, model.modules()))
    with torch.no_grad(), evaluating(model), _hooks(model, layers, recorder), recorder.tracing:
        model(input_ids=ids, **extra)
    if not again and set(map(id, model.modules())) != before:  # it replaced some of its modules in its first forward pass
        return _run(model, layers, ids, tracer and Tracer(TOKENS), again=True)
    return Trial(recorder.done, recorder.after, tracer is not None and tracer.overwrites)
