"""The map that a layer's heads go through last: its input is the heads' outputs one after another, so a head is a slice of it.

Found by comparing, on a few tokens, what each linear map of a layer takes with what each head gives: the output of mav's own
attention function, or, where a model runs its own, the attention rows times the values in its cache. Where a model bends the
heads' outputs on their way (a gate), each head is scaled by a factor of its own and the slices must be scaled alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.hooks import last_position, row_of
from openmav.backends.transformers.checks.passes import sample_ids
from openmav.backends.transformers.decoding.decoder import Decoder
from openmav.backends.transformers.discovery.anatomy import Anatomy
from openmav.backends.transformers.discovery.roles import is_linear
from openmav.backends.transformers.interventions.hook_edits import taken
from openmav.backends.transformers.loading import loader
from openmav.backends.transformers.loading.quantised import without_gradients

PROBE = "mav-probe"
EXACT = 1e-4  # of the largest number: what a slice may differ from its head; coarser float types round more
NOT_FOUND = "the map that its heads go through last was not found"


@dataclass(frozen=True)
class Projection:
    """`module` takes [..., heads * width]: head h is columns h * width to (h + 1) * width."""

    module: nn.Module
    heads: int
    width: int

    def columns(self, head: int) -> tuple[int, int]:
        return head * self.width, (head + 1) * self.width


def find(model: PreTrainedModel, anatomy: Anatomy, *, from_outputs: bool) -> tuple[Projection | None, ...]:
    """One entry a layer; None where there is none, or where it does not add up. The model is left as it was."""
    look = _Look(model, anatomy)
    given = _by_rows(look) if from_outputs else _by_function(look)
    result = [look.matching(layer, heads) for layer, heads in enumerate(given)]
    if not from_outputs:
        for layer, heads in enumerate(given):
            if result[layer] is None and heads is not None:
                result[layer] = _by_scaling(look, layer, heads)
    return tuple(result)


class _Look:
    """What the linear maps of each layer take at the last position of a forward pass."""

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy) -> None:
        self.model = model
        self.anatomy = anatomy
        self.ids = sample_ids(model)
        self.takes: list[dict[nn.Module, Tensor]] = [{} for _ in anatomy.layers]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are on inside this block, and gone after it."""
        handles = []
        try:
            for takes, layer, owner in zip(self.takes, self.anatomy.layers, self.anatomy.attention_modules):
                takes.clear()
                for module in () if owner is None else layer.modules():
                    if is_linear(module):
                        handles.append(module.register_forward_pre_hook(partial(self._keep, takes), with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, takes: dict[nn.Module, Tensor], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = taken(args, kwargs)[1]
        if x.is_floating_point() and x.numel():
            takes[module] = last_position(x).float().cpu().clone()

    def matching(self, layer: int, heads: Tensor | None) -> Projection | None:
        """The one map of a layer that takes `heads` [heads, width], one after another."""
        if heads is None:
            return None
        wanted = heads.reshape(-1)
        fits = [module for module, x in self.takes[layer].items() if x.shape == wanted.shape and self.same(x, wanted)]
        return Projection(fits[0], *heads.shape) if len(fits) == 1 else None

    def same(self, a: Tensor, b: Tensor) -> bool:
        limit = max(EXACT, 8 * torch.finfo(self.model.dtype).eps)
        return bool(b.any()) and bool((a - b).abs().max() <= limit * b.abs().max())


@dataclass
class _Probe:
    """What mav's attention gave in each module at the last query, [heads, width]; each head times its factor, where there are some."""

    factors: dict[nn.Module, Tensor] = field(default_factory=dict)
    gave: dict[nn.Module, Tensor] = field(default_factory=dict)

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        output, nothing = attention.attention(module, *args, **kwargs)
        if module in self.factors:
            output = output * self.factors[module].to(output)[:, None]
        self.gave[module] = output[0, -1].float().cpu().clone()
        return output, nothing


def _probed(look: _Look, factors: dict[nn.Module, Tensor]) -> dict[nn.Module, Tensor]:
    """One forward pass with a probe in the place of mav's attention; mav's is back after it."""
    probe = _Probe(factors)
    name = f"{PROBE}-{id(probe)}"  # of its own: another thread may look at another model
    with attention.registered(name, probe):
        loader.use_attention(look.model, name)
        try:
            with without_gradients(look.model), look.watching():
                Decoder(look.model).prefill(look.ids, {}, lambda _n: None)
        finally:
            loader.use_attention(look.model, attention.NAME)
    return probe.gave


def _by_function(look: _Look) -> list[Tensor | None]:
    gave = _probed(look, {})
    return [None if owner is None else gave.get(owner) for owner in look.anatomy.attention_modules]


def _by_scaling(look: _Look, layer: int, heads: Tensor) -> Projection | None:
    """Where something stands between the heads and the map: the slices must follow their heads, and only theirs."""
    owner = look.anatomy.attention_modules[layer]
    assert owner is not None
    before = dict(look.takes[layer])
    factors = 1 + torch.arange(len(heads)) / len(heads)
    _probed(look, {owner: factors})
    wanted = {m: x * factors.repeat_interleave(heads.shape[1]) for m, x in before.items() if x.numel() == heads.numel()}
    fits = [m for m, x in wanted.items() if m in look.takes[layer] and look.same(look.takes[layer][m], x)]
    return Projection(fits[0], *heads.shape) if len(fits) == 1 else None


def _by_rows(look: _Look) -> list[Tensor | None]:
    """[heads, width] of each layer: the attention rows that its module returns times the values that the cache holds."""
    rows: dict[nn.Module, Tensor | None] = {}
    owners = dict.fromkeys(m for m in look.anatomy.attention_modules if m is not None)
    extra = {} if type(look.model)._can_set_attn_implementation() else {"output_attentions": True}
    decoder = Decoder(look.model)
    with without_gradients(look.model):
        decoder.prefill(look.ids[:-1], {}, lambda _n: None)
        handles = [m.register_forward_hook(lambda m, _a, output: rows.update({m: row_of(output)})) for m in owners]
        try:
            with look.watching():
                decoder.decode_one_token(look.ids[-1], extra)
        finally:
            for handle in handles:
                handle.remove()
    layers = getattr(decoder.cache, "layers", None) or []
    values = [getattr(layer, "values", None) for layer in layers]
    return [_weighed(rows.get(m) if m is not None else None, values, i) for i, m in enumerate(look.anatomy.attention_modules)]


def _weighed(row: Tensor | None, values: list[Tensor | None], layer: int) -> Tensor | None:
    """[heads, keys] with the cache's [1, kv heads, keys, width] of a layer -> [heads, width]."""
    value = values[layer] if layer < len(values) else None
    if row is None or value is None or value.ndim != 4 or value.shape[2] < row.shape[1] or row.shape[0] % value.shape[1]:
        return None
    value = value[0, :, -row.shape[1] :].float().cpu().repeat_interleave(row.shape[0] // value.shape[1], 0)
    return torch.einsum("hk,hkd->hd", row.float().cpu(), value)
