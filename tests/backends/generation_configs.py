"""Generation configs with any values, and what transformers' generate() makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from transformers import GenerationConfig, PreTrainedModel

from openmav.generation.session import Session

PROMPT = "hello mello"
IDS = torch.tensor([list(PROMPT.encode())])
Make: TypeAlias = Callable[..., Session]


def unchecked(values: dict[str, Any]) -> GenerationConfig:
    """With values that transformers itself may refuse."""
    config = GenerationConfig()
    for name, value in values.items():
        setattr(config, name, value)
    return config


def generated(model: PreTrainedModel, seed: int = 42, **config: Any) -> tuple[list[int], list[torch.Tensor]]:
    """The new tokens of generate(), and the scores that each was chosen from."""
    torch.manual_seed(seed)
    asked = {"pad_token_id": 0, "return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 16, **config}
    if "sequence_bias" in asked:
        asked["sequence_bias"] = copy.deepcopy(asked["sequence_bias"])
    found = model.generate(IDS, attention_mask=torch.ones_like(IDS), **asked)
    return found.sequences[0, IDS.shape[1] :].tolist(), [scores[0] for scores in found.scores]
