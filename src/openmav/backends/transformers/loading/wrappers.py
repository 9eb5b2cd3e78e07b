"""The transformers model inside the wrappers of a training loop: compiled, parallel, with adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from openmav.backends.transformers.capture.borrowed import Borrowed, is_compiled
from openmav.backends.transformers.head.exact_head import difference, tolerance
from openmav.errors import UsageError, words_of

COMPILED = "torch.compile is passed by while mav runs the model: the numbers are those of the model as it was before"
PARALLEL = "the model inside {kind} runs alone, on one device"
ADAPTED = "adapter {names} is part of the numbers"
SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


def unwrapped(model: Any) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model itself, and notes about its wrappers, a line each.

    Raises UsageError where there is no transformers model, or where a wrapper changes its computation.
    """
    notes: list[str] = []
    while not isinstance(model, PreTrainedModel):
        kind = type(model).__name__
        if not isinstance(model, nn.Module):
            raise UsageError(f"{kind} is no transformers model; give a model in memory, or its name as text")
        if kind in SHARDED:
            raise UsageError(f"{kind} shares a model's weights out; gather them in one model and give that")
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
            notes.append(COMPILED)
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
            notes.append(PARALLEL.format(kind=kind))
        elif hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            model = _inside_adapter(model)
        else:
            raise UsageError(f"{kind} is no transformers model" + _hint(model))
    if any(type(module).__name__ in SHARDED or type(module).__name__.startswith("FSDP") for module in model.modules()):
        raise UsageError(f"{type(model).__name__} has its weights shared out; gather them in one model and give that")
    if is_compiled(model) and COMPILED not in notes:
        notes.append(COMPILED)
    return model, (*notes, *_adapters(model))


def _hint(model: nn.Module) -> str:
    inside = [name for name, child in model.named_modules() if isinstance(child, PreTrainedModel)]
    return f"; give the one inside it (.{inside[0]})" if inside else "; mav needs one that transformers made, or its name as text"


def _inside_adapter(model: Any) -> PreTrainedModel:
    """The model that PEFT put an adapter into. Raises UsageError where its logits differ from those of PEFT's wrapper."""
    inner = model.get_base_model()
    if not isinstance(inner, PreTrainedModel):
        raise UsageError(f"the model inside {type(model).__name__} is no transformers model")
    ids = torch.arange(8, device=next(inner.parameters()).device)[None] % int(inner.config.get_text_config(decoder=True).vocab_size)
    try:
        with Borrowed(model).opened(), torch.no_grad():
            alone, expected = inner(input_ids=ids).logits.float(), model(input_ids=ids).logits.float()
    except Exception as error:
        raise UsageError(f"{type(model).__name__} can't be run on token ids ({words_of(error)})") from error
    if alone.shape != expected.shape or difference(alone, expected) > tolerance(inner.dtype):
        kinds = ", ".join(sorted({str(getattr(c.peft_type, "value", c.peft_type)) for c in model.peft_config.values()}))
        raise UsageError(f"this adapter ({kinds}) acts outside of the model that mav runs; merge it into the weights first")
    return inner


def _adapters(model: PreTrainedModel) -> tuple[str, ...]:
    """The active adapters, of those that PEFT or `add_adapter` put into the modules."""
    names: dict[str, None] = {}
    for module in model.modules():
        active = getattr(module, "active_adapters", None)
        if isinstance(active, list) and hasattr(module, "base_layer") and not getattr(module, "disable_adapters", False):
            names.update(dict.fromkeys(str(name) for name in active))
    return (ADAPTED.format(names=", ".join(names)),) if names else ()
