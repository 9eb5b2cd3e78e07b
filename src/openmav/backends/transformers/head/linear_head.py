"""One token's logit as a linear function of the residual stream, with the scale of the final norm held.

A final norm computes s(x) * w * C x + b, where C subtracts the mean (layer norm) or nothing (RMS norm) and s(x) is one number;
the head computes k * (row . norm + bias), soft-capped or not. Both are measured on the model's own modules and checked against
the model's logits on two states; where that fails there is no direction, and the error says why. A logit before a soft cap is
computed from them, since inverting the cap would lose digits.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021); Nostalgebraist, direct logit attribution.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openmav.backends.base import Directions
from openmav.backends.shared import linear_logits

SAMPLE = 512  # tokens on which the head is checked
EXACT = 1e-4
SAME = 1e-6  # relative: what fp32 rounds of a norm's scale
FREE = 0.7  # of a soft cap: only logits below this share are inverted


class NotLinearError(Exception):
    """The head can't be written as a linear function; the text says why."""


@dataclass(frozen=True)
class FrozenNorm:
    """norm(x) = s(x) * weight * C x + shift, with C the identity, or the subtraction of the mean where `centred`; all [width] fp32."""

    weight: Tensor
    shift: Tensor
    centred: bool
    module: nn.Module
    eps: float | None = None  # s(x) = unit / sqrt(mean((C x)^2) + eps), where that is so
    unit: float = 1.0
    _last: list[tuple[Tensor, float]] = field(default_factory=list, compare=False, repr=False)  # the last state, and its scale

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight and shift."""
        return _array(self.weight), _array(self.shift)

    def centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Tensor) -> float:
        """s(x); the last one is cached, since several measures use it."""
        if not (self._last and self._last[0][0] is x):
            self._last[:] = [(x, self.measured(x) if self.eps is None else self.computed(x, self.eps))]
        return self._last[0][1]

    def measured(self, x: Tensor) -> float:
        """s(x), from the module's output at x."""
        output, plain = self.module(x[None])[0] - self.shift, self.weight * self.centre(x)
        return float((output @ plain) / (plain @ plain))

    def computed(self, x: Tensor, eps: float) -> float:
        """s(x), from its formula."""
        return self.unit * linear_logits.inverse_size(_array(x), eps, self.centred)

    def error(self, x: Tensor) -> float:
        """How far the formula is from the module's output at x, relative."""
        output = self.module(x[None])[0]
        formula = self.scale(x) * self.weight * self.centre(x) + self.shift
        return float((output - formula).norm() / output.norm())


@dataclass(frozen=True)
class LinearHead:
    """Directions of tokens, for any last residual stream: logit = factor * (rows[token] . norm(x) + bias[token]), before the cap."""

    norm: FrozenNorm
    rows: Tensor  # [vocab, width], the model's own
    bias: Tensor | None  # [vocab]
    factor: float
    cap: float | None

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions:
        """See backends.base.Head; fp32, on the device of the residual."""
        ids, x, norm = torch.tensor(token_ids), residual.float(), self.norm
        with torch.inference_mode():
            scale = norm.scale(x.to(norm.weight.device))
            rows = _array(self.rows[ids.to(self.rows.device)])  # [tokens, width]
            own = _array(logits[ids.to(logits.device)])
            bias = None if self.bias is None else _array(self.bias[ids.to(self.bias.device)])
        vectors, constants = linear_logits.directions(rows, *norm.arrays, bias, factor=self.factor, scale=scale, centred=norm.centred)
        if self.cap is not None:
            own = vectors @ _array(x) + constants
        on = residual.device
        return Directions(torch.from_numpy(vectors).to(on), torch.from_numpy(constants).to(on), torch.from_numpy(own).to(on))


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array


def capped(before: Tensor, cap: float | None) -> Tensor:
    """The logits after a soft cap."""
    return before if cap is None else cap * torch.tanh(before / cap)


def find(config: Any, head: nn.Module | None, norm: nn.Module | None, states: Tensor, logits: Tensor, tolerance: float) -> LinearHead:
    """The linear head of a model, checked on `states` [n, width] and the model's own `logits` [n, vocab] for them.

    `head` is the model's output embedding. Raises NotLinearError.
    """
    rows, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(rows, Tensor) or not _readable(rows, states.shape[-1]):
        raise NotLinearError("the rows of the head can't be read (quantised, offloaded or projected)")
    states = states.float()
    frozen = _freeze(norm, states)
    sample = torch.linspace(0, logits.shape[-1] - 1, min(SAMPLE, logits.shape[-1])).long()
    with torch.inference_mode():
        plain = frozen.module(states) @ rows[sample.to(rows.device)].float().to(states.device).T
        plain = plain if bias is None else plain + bias[sample.to(bias.device)].float().to(states.device)
        for cap in (None, *_caps(config)):
            wanted = logits[:, sample.to(logits.device)].to(plain)
            factor = _factor(plain, wanted, cap)
            if float((capped(factor * plain, cap) - wanted).abs().max()) <= tolerance * float(wanted.abs().max()):
                return LinearHead(frozen, rows, bias, factor, cap)
    raise NotLinearError("the logits are no linear function of the normed residual stream")


def _factor(plain: Tensor, wanted: Tensor, cap: float | None) -> float:
    """The factor from `plain` to the logits before the cap, by those that are not near it; NaN where all are."""
    if cap is not None:
        free = wanted.abs() < FREE * cap
        plain, wanted = plain[free], cap * torch.atanh(wanted[free].double() / cap).to(plain)
    return float((wanted * plain).sum() / (plain * plain).sum())


def _readable(rows: Tensor, width: int) -> bool:
    return rows.is_floating_point() and rows.ndim == 2 and rows.shape[1] == width and not rows.is_meta


def _freeze(norm: nn.Module | None, states: Tensor) -> FrozenNorm:
    """Measure weight, shift and centring of a norm on a vector of alternating ones. Raises NotLinearError."""
    module = nn.Identity() if norm is None else _in_fp32(norm, states.device)
    width = states.shape[-1]
    probe = torch.ones(width, device=states.device)
    probe[1::2] = -1.0
    zero = torch.zeros_like(probe)
    with torch.inference_mode():
        shift = module(zero[None])[0]
        moved = states[0] + states[0].abs().mean()
        apart = float((module(moved[None]) - module(states[:1])).norm() / module(states[:1]).norm())
        centred = apart < 1e-3
        frozen = FrozenNorm(torch.ones_like(probe), shift, centred, module)
        frozen = FrozenNorm((module(probe[None])[0] - shift) / frozen.centre(probe), shift, centred, module)
        errors = [frozen.error(x) for x in states]
        if not all(math.isfinite(e) and e <= EXACT for e in errors):
            raise NotLinearError("the final norm is no weighted scaling of the residual stream")
        return _with_formula(frozen, probe, states)


def _with_formula(norm: FrozenNorm, probe: Tensor, states: Tensor) -> FrozenNorm:
    """The norm with the formula of its scale where that gives what its module gives: a module's call is most of a direction's time."""
    for eps in sorted({value for name, value in vars(norm.module).items() if "eps" in name and isinstance(value, float)}):
        unit = 1.0 / linear_logits.inverse_size(_array(probe), eps, norm.centred)
        fitted = replace(norm, eps=eps, unit=unit, _last=[])
        if all(abs(fitted.scale(x) / norm.measured(x) - 1) <= SAME for x in states):
            return fitted
    return norm


def _in_fp32(norm: nn.Module, device: torch.device) -> nn.Module:
    """A copy in fp32 that shares nothing with the model. Raises NotLinearError for weights that are not in memory."""
    if any(p.is_meta for p in norm.parameters()):
        raise NotLinearError("the weights of the final norm are offloaded")
    twin = copy.deepcopy(norm)
    twin._forward_hooks.clear()
    twin._forward_pre_hooks.clear()
    return twin.to(device).float().requires_grad_(False)


def _caps(config: Any) -> list[float]:
    """Values in the config that may be a soft cap of the logits."""
    text = config.get_text_config(decoder=True)
    named = {v for k, v in vars(text).items() if "cap" in k and isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0}
    return sorted(float(v) for v in named)
