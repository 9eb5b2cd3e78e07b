"""Many touched runs of one prompt at once: a row of the batch for each, whose edits reach that row only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openmav.backends._hf import head, placing, quantised
from openmav.backends._hf.touching import Hands, Touch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = 256 * 2**20  # bytes that the rows of one pass may take, roughly
MOST = 32  # rows of one pass: more are no faster, and nothing is told meanwhile
CLOSE = 1e-5  # of the largest logit: what a row of a batch may differ from the same text alone, in fp32


def logits_of(model: PreTrainedModel, touches: Sequence[Touch], ids: Sequence[int], alone: Tensor) -> Iterator[Tensor | None]:
    """The logits [vocab] fp32 after the last of `ids` with each touch in force alone, in order.

    `alone` are the untouched ones of the same text on its own. None, once, where a batch of this model does not give those: then
    each has to be run by itself.
    """
    size = _rows(model, len(ids))
    for at in range(0, len(touches), size):
        some = touches[at : at + size]
        found = _batch(model, some, ids, untouched=at == 0)
        if at == 0 and head.difference(found[-1], alone) > max(CLOSE, 8 * torch.finfo(model.dtype).eps):
            yield None
            return
        yield from found[: len(some)]


def _batch(model: PreTrainedModel, touches: Sequence[Touch], ids: Sequence[int], *, untouched: bool) -> Tensor:
    """[touches, vocab] fp32 on the CPU; one row more where an untouched one is asked for."""
    count = len(touches) + untouched
    hands = Hands([touch.in_row(at) for at, touch in enumerate(touches)], lambda: len(ids), batch=count)
    rows = torch.tensor([list(ids)] * count, device=placing.input_device(model))
    wanted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in wanted else {}
    if "logits_to_keep" in wanted:
        extra["logits_to_keep"] = 1
    with quantised.without_gradients(model), hands.on():
        logits: Tensor = model(input_ids=rows, attention_mask=torch.ones_like(rows), **extra).logits[:, -1].float().cpu()
    return logits


def _rows(model: PreTrainedModel, tokens: int) -> int:
    """How many texts of so many tokens one pass takes."""
    config = model.config.get_text_config(decoder=True)
    width = int(getattr(config, "hidden_size", 0) or 1024)
    inner = getattr(config, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * width
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    bytes_of_one = 4 * tokens * (16 * width + 4 * inner + 3 * heads * tokens) + 8 * int(config.vocab_size)
    return max(1, min(MOST, MEMORY // bytes_of_one))
