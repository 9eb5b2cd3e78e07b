"""What a model computes, without mav: transformers' own full forward pass and `generate`, with hooks of our own.

Everything here works on a copy of the model that mav has never seen, with eager attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class FullPass:
    """One forward pass over all tokens without a cache."""

    logits: Tensor  # [tokens, vocab] fp32
    rows: Mapping[str, Tensor]  # [heads, tokens, keys] fp32 of the attention modules that return them, by path


def full_pass(model: PreTrainedModel, ids: Sequence[int], owners: Sequence[str] = ()) -> FullPass:
    """`owners`: the paths of attention modules whose rows are wanted."""
    rows: dict[str, Tensor] = {}

    def keep(path: str, output: object) -> None:
        found = [t for t in output if isinstance(t, Tensor) and t.ndim == 4] if isinstance(output, tuple | list) else []
        if found:
            rows[path] = found[-1][0].float()

    handles = [model.get_submodule(p).register_forward_hook(lambda _m, _a, out, p=p: keep(p, out)) for p in owners]
    try:
        with torch.no_grad():
            output = model(**_inputs(model, ids), **({"output_attentions": True} if owners else {}))
    finally:
        for handle in handles:
            handle.remove()
    return FullPass(output.logits[0].float(), rows)


def _inputs(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, Any]:
    row = torch.tensor([list(ids)])
    known = inspect.signature(model.forward).parameters
    given: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row), "use_cache": False}
    return {name: value for name, value in given.items() if name in known or "kwargs" in known}


def generated(model: PreTrainedModel, ids: Sequence[int], count: int) -> tuple[list[int], Tensor]:
    """`count` greedy tokens after `ids`, by transformers' `generate`, and the raw logits [count, vocab] fp32 that each was chosen by."""
    model.generation_config = GenerationConfig(pad_token_id=0)
    row = torch.tensor([list(ids)])
    asked: dict[str, Any] = {"do_sample": False, "max_new_tokens": count, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        made = model.generate(row, attention_mask=torch.ones_like(row), **asked)
    return made.sequences[0, len(ids) :].tolist(), torch.stack([logits[0] for logits in made.logits]).float()


class Recorder:
    """The last position of what modules take and give, kept by hooks of our own; of a module that runs more than once, the last run."""

    def __init__(self, inputs: Sequence[nn.Module], outputs: Sequence[nn.Module]) -> None:
        self.inputs, self.outputs = list(dict.fromkeys(inputs)), list(dict.fromkeys(outputs))
        self.taken: dict[nn.Module, Tensor] = {}  # [width]
        self.given: dict[nn.Module, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        handles = [m.register_forward_pre_hook(self._take, with_kwargs=True) for m in self.inputs]
        handles += [m.register_forward_hook(self._give) for m in self.outputs]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = _first(args) if args else kwargs.get("hidden_states", _first(tuple(kwargs.values())))
        if isinstance(value, Tensor):
            self.taken[module] = value.reshape(-1, value.shape[-1])[-1].clone()

    def _give(self, module: nn.Module, _args: object, output: object) -> None:
        value = _first(output)
        if value is not None:
            self.given[module] = value.reshape(-1, value.shape[-1])[-1].clone()


def _first(value: object) -> Tensor | None:
    """The first tensor of what a module gives."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


@contextmanager
def zeroed(model: PreTrainedModel, paths: Sequence[str]) -> Iterator[None]:
    """Within this block these modules give zeros."""

    def zero(_module: nn.Module, _args: object, output: Any) -> Any:
        return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)

    handles = [model.get_submodule(path).register_forward_hook(zero) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
