"""A model that its owner is training, and what it says by itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from openmav import Session

IDS = [5, 17, 200, 31, 8, 90, 44]


def build(seed: int = 0, **changed: Any) -> LlamaForCausalLM:
    """A random Llama, in training, with dropout in its attention and one layer that its owner froze."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {"eos_token_id": None, "bos_token_id": None, "attention_dropout": 0.3, "initializer_range": 0.3}
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **ends, "num_key_value_heads": 2, "max_position_embeddings": 256, **changed})).train()
    model.model.layers[1].eval()
    model.model.layers[1].requires_grad_(False)
    return model


def tokens_of(session: Session) -> list[int]:
    return [step.token_id for step in session]


def generated(model: nn.Module, prompt: str, count: int) -> list[int]:
    """What the model itself says, by full passes without a cache, in evaluation mode."""
    alone: Any = copy.deepcopy(model).eval()
    ids = list(prompt.encode())
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(alone(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[-count:]
