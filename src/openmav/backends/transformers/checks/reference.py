"""Reference computations without mav: one pass over a text without a cache, and transformers' own `generate`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from openmav.backends.transformers.capture.hooks import row_of
from openmav.backends.transformers.decoding.model_inputs import takes_mask
from openmav.backends.transformers.loading import placement
from openmav.backends.transformers.loading.quantised import without_gradients

Rows: TypeAlias = Mapping[nn.Module, Tensor]  # [heads, keys] fp32 of each attention module that returned one


def whole_pass(model: PreTrainedModel, ids: Sequence[int], last: int) -> Tensor:
    """[last, vocab] fp32: the logits of the last positions of a text, read in one pass without a cache."""
    row = torch.tensor([list(ids)], device=placement.input_device(model))
    takes = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
    if takes_mask(model):
        extra["attention_mask"] = torch.ones_like(row)
    with without_gradients(model):
        logits: Tensor = model(input_ids=row, **extra).logits[0, -last:].float().cpu()
    return logits


def whole_pass_and_rows(model: PreTrainedModel, ids: Sequence[int], owners: Sequence[nn.Module]) -> tuple[Tensor, tuple[Rows, Rows]]:
    """[2, vocab] fp32 the logits of the last two positions of such a pass, and for each the attention rows that the modules return.

    Raises ValueError for attention whose keys are not the tokens.
    """
    by_owner: dict[nn.Module, tuple[Tensor | None, Tensor | None]] = {}

    def keep(owner: nn.Module, _module: nn.Module, _args: object, output: object) -> None:
        last = row_of(output)
        by_owner[owner] = row_of(output, -2), last
        if last is not None and last.shape[-1] != len(ids):
            raise ValueError(f"attention has {last.shape[-1]} keys for {len(ids)} tokens")

    handles = [owner.register_forward_hook(partial(keep, owner)) for owner in dict.fromkeys(owners)]
    try:
        logits = whole_pass(model, ids, 2)
    finally:
        for handle in handles:
            handle.remove()
    kept = {owner: (before[:, :-1], last) for owner, (before, last) in by_owner.items() if before is not None and last is not None}
    return logits, ({owner: rows[0] for owner, rows in kept.items()}, {owner: rows[1] for owner, rows in kept.items()})


def generated(model: PreTrainedModel, prompt: Sequence[int], count: int) -> tuple[list[int], Tensor]:
    """The `count` tokens that `generate` adds to a prompt, and [count, vocab] fp32 the logits that it chose each of them by."""
    row = torch.tensor([list(prompt)], device=placement.input_device(model))
    extra = {"attention_mask": torch.ones_like(row)} if takes_mask(model) else {}
    with without_gradients(model), _plain_settings(model):
        output: Any = model.generate(
            row, **extra, max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0
        )
    return output.sequences[0, len(prompt) :].tolist(), torch.stack([logits[0].float().cpu() for logits in output.logits])


@contextmanager
def _plain_settings(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: `generate` is greedy and never stops early, whatever the model's own settings are."""
    config = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = config
