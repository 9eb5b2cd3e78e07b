"""Tiny random models of every type that transformers can build, seeded, in any float type, with eager attention.

Weights are drawn wider than a fresh model's, embeddings larger than what a layer adds, and biases and norms are not left at 0 and
1, so that a part that is ignored, or taken for another, changes the numbers by far more than any rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from backends.tiny_configs import CAUSAL, SIDE, VARIANTS, tiny_config
from backends.tiny_reasons import in_words

LARGEST = 40_000_000  # parameters: a type that is larger than this has a size that nobody made small
FIXED = ("A_log", "dt_bias", ".D")  # parameters that a state space needs as they are
EMBEDDED = 4.0  # the spread of embeddings: what a block adds is then a few to some ten per cent of the residual stream
LEARNED = ("layer_scalar", "e_score_correction_bias", "expert_bias")  # buffers that training sets


class CannotBuildError(Exception):
    """transformers can't build this type here, and why."""


def tiny_model(model_type: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny random model of a type, evaluating; the weights in `dtype` are those in fp32, rounded. Raises CannotBuildError."""
    try:
        model = _from_config(model_type, torch.float32, seed, changes)
        _draw(model, seed)
        if dtype == torch.float32:
            return model
        rounded = _from_config(model_type, dtype, seed, changes)
    except Exception as error:
        raise CannotBuildError(in_words(error)) from error
    rounded.load_state_dict(model.state_dict())
    return rounded


def exacter(model: PreTrainedModel, model_type: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model with the very weights of this one that computes in a wider float type."""
    other = _from_config(model_type, dtype, 0, {})
    other.load_state_dict({name: value.to(dtype) if value.is_floating_point() else value for name, value in model.state_dict().items()})
    return other


def jittered(model: PreTrainedModel, model_type: str) -> PreTrainedModel:
    """The same model with each weight changed by about its rounding: what it computes differs by the error of its float type."""
    other = _from_config(model_type, model.dtype, 0, {})
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(1 + torch.finfo(value.dtype).eps * torch.randint(-1, 2, value.shape, generator=generator))
    return other


def _from_config(model_type: str, dtype: torch.dtype, seed: int, changes: dict[str, Any]) -> PreTrainedModel:
    config = tiny_config(model_type, **changes)
    auto = AutoModelForCausalLM if VARIANTS.get(model_type, (model_type,))[0] in CAUSAL else AutoModelForImageTextToText
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(config, attn_implementation="eager").parameters())
    if size > LARGEST:
        raise ValueError(f"{size // 1_000_000} million parameters: too large for a tiny model")
    torch.manual_seed(seed)
    model: PreTrainedModel = auto.from_config(tiny_config(model_type, **changes), dtype=dtype, attn_implementation="eager")
    return model.eval()


def _draw(model: PreTrainedModel, seed: int) -> None:
    """Draw the weights of all that text runs through."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    buffers = [(name, value) for name, value in model.named_buffers() if name.endswith(LEARNED)]
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *buffers]:
            if name.endswith(FIXED) or SIDE.search(name) or not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if id(value) in embeddings:
                value.copy_(noise * EMBEDDED)
            elif value.ndim > 1:
                value.copy_(noise * 1.25 / value.shape[-1] ** 0.5)
            else:
                value.add_(noise * 0.2)
