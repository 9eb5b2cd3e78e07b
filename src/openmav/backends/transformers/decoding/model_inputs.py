"""What a model's class does with the arguments of a pass, read from its methods."""

from __future__ import annotations

import inspect

from transformers import PreTrainedModel
from transformers.generation.utils import GenerationMixin


def takes_mask(model: PreTrainedModel) -> bool:
    """Whether `generate` would pass the model an attention mask: its forward pass has one, and its prepared inputs may."""
    prepares = inspect.signature(model.prepare_inputs_for_generation).parameters
    passes_on = any(p.kind is p.VAR_KEYWORD for p in prepares.values())
    return "attention_mask" in inspect.signature(model.forward).parameters and ("attention_mask" in prepares or passes_on)


def prepares_nothing(model: PreTrainedModel) -> bool:
    """Whether the model's class prepares its inputs as transformers does, and is no encoder-decoder."""
    own = type(model)
    stock = ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
    return not model.config.is_encoder_decoder and all(getattr(own, name) is getattr(GenerationMixin, name) for name in stock)
