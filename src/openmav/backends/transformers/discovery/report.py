"""Describes in words where each site of a model is; layers that are alike are grouped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from openmav.backends.transformers.checks import agreement
from openmav.backends.transformers.checks.verify import Checked
from openmav.backends.transformers.discovery.anatomy import Anatomy, Coefficient, Part
from openmav.record.ranges import ranges


def describe(model: nn.Module, anatomy: Anatomy, checked: Checked) -> list[tuple[str, str]]:
    """(what, where) for every site; paths are relative to the layer where they are inside one."""
    paths = {id(module): path for path, module in model.named_modules()}
    inside = [{id(module): path for path, module in layer.named_modules()} for layer in anatomy.layers]

    def within(layer: int, module: nn.Module | None) -> str:
        return "" if module is None else inside[layer].get(id(module)) or paths.get(id(module)) or type(module).__name__

    def sum_of(parts: Sequence[Part | None]) -> str:
        return (
            "none"
            if not parts
            else grouped(parts, lambda layer, part: " + ".join(_term(t.coefficient, within(layer, t.module)) for t in part))
        )

    layers, head, past = anatomy.layers, checked.head, agreement.summary(checked.past)
    linear = None if head is None else head.linear
    return [
        ("layers", f"{_stem(paths[id(layers[0])])}, {len(layers)} of {_names(type(layer).__name__ for layer in layers)}"),
        ("kinds", grouped(anatomy.kinds, lambda _, kind: kind)),
        ("attention adds", sum_of(anatomy.attention)),
        ("attention rows", grouped(anatomy.attention_modules, within) + _whose(checked)),
        ("MLP adds", sum_of(anatomy.mlp)),
        *([("other terms added", sum_of(anatomy.other))] if any(anatomy.other) else []),
        ("neurons", "the input of " + grouped(checked.mlp_internals.last_linear, within)),
        ("experts", grouped(checked.mlp_internals.experts, within)),
        ("final norm", "none" if anatomy.final_norm is None else paths[id(anatomy.final_norm)]),
        ("head", "not usable" if head is None else "the model's own forward from its last layer on"),
        ("directions", "none" if linear is None else _linear(linear.factor, linear.cap, linear.norm.centred)),
        *([] if past is None else [("past lengths", past)]),
    ]


def grouped(values: Sequence[object], text: Callable[..., str]) -> str:
    """`text(layer, value)` for all layers, with the layers named where they differ; "none" where there is no value."""
    by_text: dict[str, list[int]] = {}
    for layer, value in enumerate(values):
        by_text.setdefault("none" if value is None else text(layer, value), []).append(layer)
    if len(by_text) == 1:
        return next(iter(by_text))
    return "; ".join(f"{what} ({ranges(layers)})" for what, layers in by_text.items())


def _whose(checked: Checked) -> str:
    """Why the model does not run with mav's attention, where it does not."""
    if not checked.from_outputs:
        return ""
    errors = [(name, error) for name, error in checked.errors.items() if name.startswith("attention") and not math.isnan(error)]
    apart = [f"{name.removeprefix('attention ')} by {error:.1e}" for name, error in errors]
    return ", as it returns them" + (f"; mav's attention would change {' and '.join(apart)}" if apart else "")


def _term(coefficient: Coefficient, path: str) -> str:
    if not path:
        return "a bias of the layer's own"
    if isinstance(coefficient, Tensor):
        return f"(a factor per channel) * {path}"
    return path if coefficient == 1 else f"{coefficient:.6g} * {path}"


def _stem(path: str) -> str:
    return path.rpartition(".")[0] or path


def _names(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _linear(factor: float, cap: float | None, centred: bool) -> str:
    parts = ["rows of the head through the final norm", "the mean subtracted" if centred else ""]
    parts += [f"times {factor:.6g}" if abs(factor - 1) > 1e-6 else "", "" if cap is None else f"before the soft cap at {cap:g}"]
    return ", ".join(part for part in parts if part)
