"""Tensors in the inputs and outputs of modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

MOST_CHOSEN = 64  # experts per token; a tensor with more columns is no choice of experts


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first entry of a tuple, list or dict if that is one."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) else None


def output_tensor(output: object) -> Tensor:
    """The tensor of a module's output; the first of a tuple. Raises TypeError where there is none."""
    while not isinstance(output, Tensor):
        if not isinstance(output, (tuple, list)):
            raise TypeError(f"a module returned {type(output).__name__}, not a tensor")
        output = output[0]
    return output


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first positional argument, else `hidden_states`, else the first one by name."""
    if args:
        return args[0]
    return kwargs.get("hidden_states", next(iter(kwargs.values()), None))


def with_given(args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with `tensor` in place of the one that `given` returns."""
    if args:
        return (tensor, *args[1:]), dict(kwargs)
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: tensor}


def mask_width(kwargs: Mapping[str, Any]) -> int | None:
    """How many keys the attention mask [1, 1, queries, keys] among a call's arguments covers; None where there is no mask."""
    mask = kwargs.get("attention_mask")
    return mask.shape[-1] if isinstance(mask, Tensor) and mask.ndim == 4 else None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a value, at any depth of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors_in(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)


def experts_scored(scores: Tensor | None, tokens: int) -> int:
    """Experts per token, of scores [tokens, experts] that are 0 for experts not chosen; 0 where `scores` is no such tensor."""
    if scores is None or scores.ndim != 2 or scores.shape[0] != tokens or not scores.is_floating_point() or scores.is_meta:
        return 0
    counts = set((scores != 0).sum(-1).tolist())
    count = int(counts.pop()) if len(counts) == 1 else 0
    return count if count < min(scores.shape[-1], MOST_CHOSEN + 1) else 0


def choice_of_experts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """(ids, weights), each [tokens, k], among the arguments of a call; None if there is no such pair."""
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.ndim == 2 and t.shape[-1] <= MOST_CHOSEN]
    ids = [t for t in tensors if t.dtype in (torch.int64, torch.int32)]
    weights = [t for t in tensors if t.is_floating_point() and ids and t.shape == ids[0].shape]
    return (ids[0], weights[0]) if ids and weights else None
