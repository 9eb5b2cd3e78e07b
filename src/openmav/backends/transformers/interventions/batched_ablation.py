"""Many edited runs of one prompt at once: one row of the batch each, whose edits reach that row only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openmav.backends.transformers.capture.module_state import fresh
from openmav.backends.transformers.decoding.decoder import traits_of
from openmav.backends.transformers.decoding.model_inputs import takes_mask
from openmav.backends.transformers.head import exact_head
from openmav.backends.transformers.interventions.hook_edits import InterventionHooks, PlacedEdit
from openmav.backends.transformers.loading import placement, quantised
from openmav.backends.transformers.loading.context import largest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = 256 * 2**20  # bytes that the rows of one pass may take, roughly
MOST = 32  # rows of one pass: more are no faster, and report no progress meanwhile
CLOSE = 1e-5  # of the largest logit: what a row of a batch may differ from the same text alone, in fp32


def logits_of(model: PreTrainedModel, placed: Sequence[PlacedEdit], ids: Sequence[int], alone: Tensor) -> Iterator[Tensor | None]:
    """The logits [vocab] fp32 after the last of `ids` with each edit applied alone, in order.

    `alone` are the baseline's for the same text on its own. Yields None, once, where a batch of this model does not reproduce those:
    then each has to be run by itself.
    """
    size = _rows(model, len(ids))
    for at in range(0, len(placed), size):
        some = placed[at : at + size]
        result = _batch(model, some, ids, baseline=at == 0)
        if at == 0 and exact_head.difference(result[-1], alone) > max(CLOSE, 8 * torch.finfo(model.dtype).eps):
            yield None
            return
        yield from result[: len(some)]


def _batch(model: PreTrainedModel, placed: Sequence[PlacedEdit], ids: Sequence[int], *, baseline: bool) -> Tensor:
    """[placed, vocab] fp32 on the CPU; one more row where a baseline is requested."""
    count = len(placed) + baseline
    hooks = InterventionHooks([one.in_row(at) for at, one in enumerate(placed)], lambda: len(ids), batch=count)
    rows = torch.tensor([list(ids)] * count, device=placement.input_device(model))
    wanted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in wanted else {}
    if "logits_to_keep" in wanted:
        extra["logits_to_keep"] = 1
    if takes_mask(model):
        extra["attention_mask"] = torch.ones_like(rows)
    with quantised.without_gradients(model), fresh(traits_of(model).slots), hooks.on():
        logits: Tensor = model(input_ids=rows, **extra).logits[:, -1].float().cpu()
    return logits


def _rows(model: PreTrainedModel, tokens: int) -> int:
    """How many texts of so many tokens one pass takes."""
    config = model.config.get_text_config(decoder=True)
    width = int(getattr(config, "hidden_size", 0) or 1024)
    inner = getattr(config, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * width
    heads = largest(config, "num_attention_heads") or 1
    bytes_of_one = 4 * tokens * (16 * width + 4 * inner + 3 * heads * tokens) + 8 * int(config.vocab_size)
    return max(1, min(MOST, MEMORY // bytes_of_one))
