"""What is inside an MLP sub-block: the linear map that its neurons go through last, or the experts that a router chooses from.

Found by watching one forward pass, no table of architectures: the last linear map to run counts if its output is, up to a
factor, what the block gives or what it adds to the residual stream; experts are the module that is called with a choice, ids
and weights [tokens, k].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends._hf._roles import MLP, has_matrix, is_list, role, role_in_layer
from openmav.backends._hf._trial import first_tensor
from openmav.backends._hf.anatomy import Anatomy

MOST_CHOSEN = 64  # experts a token; more columns than that are no choice
SAME = 1e-3  # of the block's output: what the last linear map may differ from it, up to a factor
INPUT = ""  # the path under which a layer's own input is kept
NO_EXPERTS = "no mixture of experts in this layer"


@dataclass(frozen=True)
class Inside:
    """One entry a layer; None where there is none, and `missing` says why: {site: {layer: reason}}.

    `overwrites`: this model writes into outputs after it made them (falcon adds attention to its MLP's in place), so that who
    wants to keep one must copy it at once.
    """

    last_linear: tuple[nn.Module | None, ...]
    experts: tuple[nn.Module | None, ...]
    overwrites: bool = False
    factors: tuple[float | None, ...] = ()  # times the last linear map's output is what the MLP adds; None: it is no multiple of it
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def choice_of_experts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """(ids, weights), each [tokens, k], among the arguments of a call; None if there is no such pair."""
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.ndim == 2 and t.shape[-1] <= MOST_CHOSEN]
    ids = [t for t in tensors if t.dtype in (torch.int64, torch.int32)]
    weights = [t for t in tensors if t.is_floating_point() and ids and t.shape == ids[0].shape]
    return (ids[0], weights[0]) if ids and weights else None


class Observer:
    """Watches a forward pass; `found` says what is inside each layer's MLP."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._made: list[dict[str, Tensor]] = [{} for _ in anatomy.layers]  # outputs at the last position, by path, as they came
        self._kept: dict[tuple[int, str], Tensor] = {}  # the outputs themselves
        self._experts: list[nn.Module | None] = [None] * len(anatomy.layers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are on inside this block, and gone after it."""
        handles = []
        try:
            for index, layer in enumerate(self.anatomy.layers):
                handles.append(layer.register_forward_pre_hook(partial(self._begin, index), with_kwargs=True))
                for path, module in layer.named_modules():
                    if path and not is_list(module):
                        handles.append(module.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True))
                        handles.append(module.register_forward_hook(partial(self._leave, index, path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, index: int, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._made[index].clear()
        came = first_tensor((*args, *kwargs.values()))
        if came is not None:
            self._keep(index, INPUT, came)

    def _enter(self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._experts[index] is None and choice_of_experts(args, kwargs) is not None:
            self._experts[index] = module

    def _leave(self, index: int, path: str, _module: nn.Module, _args: object, output: object) -> None:
        made = first_tensor(output)
        if made is not None and made.is_floating_point() and made.ndim >= 2 and made.numel():
            self._made[index].pop(path, None)  # what runs twice counts where it ran last
            self._keep(index, path, made)

    def _keep(self, index: int, path: str, value: Tensor) -> None:
        self._made[index][path] = _last(value)
        self._kept[index, path] = value

    def found(self) -> Inside:
        """What the last forward pass showed."""
        missing: dict[str, dict[int, str]] = {"mlp.hidden": {}, "router.experts": {}, "router.weights": {}}
        linear: list[nn.Module | None] = []
        factors: list[float | None] = []
        for index, layer in enumerate(self.anatomy.layers):
            path = self._last_linear(index)
            linear.append(layer.get_submodule(path) if path else None)
            factors.append(_factor(self._made[index][path], self._added(index)) if path else None)
            if path is None:
                missing["mlp.hidden"][index] = self._why(index)
            if self._experts[index] is None:
                missing["router.experts"][index] = missing["router.weights"][index] = NO_EXPERTS
        kept = ((value, self._made[index].get(path)) for (index, path), value in self._kept.items())
        overwrites = any(made is not None and not _equal(_last(value), made) for value, made in kept)
        self._kept.clear()
        missing = {site: layers for site, layers in missing.items() if layers}
        return Inside(tuple(linear), tuple(self._experts), overwrites, tuple(factors), missing)

    def _last_linear(self, index: int) -> str | None:
        """The path of the MLP's last linear map, if the block gives its output on as it is or times a number."""
        layer, made = self.anatomy.layers[index], self._made[index]
        if self._experts[index] is not None:
            return None
        linear = [p for p in made if p != INPUT and is_linear(layer.get_submodule(p)) and role_in_layer(layer, p) == MLP]
        if not linear:
            return None
        last = linear[-1]
        block, added = made.get(_block(layer, last)), self._added(index)
        return last if any(_factor(made[last], whole) is not None for whole in (block, added)) else None

    def _added(self, index: int) -> Tensor | None:
        """What the MLP added to the residual stream, [width]; None where that is not known."""
        part, paths = self.anatomy.mlp[index], {id(m): p for p, m in self.anatomy.layers[index].named_modules()}
        values = [self._made[index].get(INPUT if t.module is None else paths[id(t.module)]) for t in part or ()]
        if not part or any(v is None for v in values):
            return None
        return torch.stack([v * t.coefficient for v, t in zip(values, part, strict=True) if v is not None]).sum(0)

    def _why(self, index: int) -> str:
        if self._experts[index] is not None:
            return "mixture of experts: see router"
        absent = self.anatomy.missing.get("mlp.out", {}).get(index)
        return absent or "the linear map that the neurons go through last was not found"


def is_linear(module: nn.Module) -> bool:
    return has_matrix(module) and not any(True for _ in module.children())


def _last(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1])[-1].float().clone()


def _block(layer: nn.Module, path: str) -> str:
    """The path of the outermost module on the way to `path` that is called an MLP; `path` itself where none is."""
    parts, module = path.split("."), layer
    for i, attribute in enumerate(parts):
        module = getattr(module, attribute)
        if role(attribute, module) == MLP:
            return ".".join(parts[: i + 1])
    return path


def _equal(a: Tensor, b: Tensor) -> bool:
    """Bit for bit; NaN equals NaN."""
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def _factor(a: Tensor, b: Tensor | None) -> float | None:
    """The factor that makes `a` the same as `b`; None where there is none."""
    if b is None or a.shape != b.shape or not bool(a.any()):
        return None
    factor = (a @ b) / (a @ a)
    return float(factor) if bool((b - factor * a).norm() <= SAME * b.norm()) else None
