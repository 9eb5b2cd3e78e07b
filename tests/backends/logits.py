"""What transformers says of a text alone, in float64: the numbers that a comparison is held against."""

from __future__ import annotations

from typing import Any

import torch


def hidden(model: Any, ids: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Of the last token, with eager attention and without a cache: its logits, and the residual stream after each layer but the last."""
    with torch.inference_mode():
        output = model(torch.tensor([ids]), output_hidden_states=True)
    return output.logits[0, -1].double(), [state[0, -1].double() for state in output.hidden_states[1:-1]]


def divergence(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="sum"))


def cached_logits(model: Any, prompt: list[int], fed: list[int]) -> list[torch.Tensor]:
    """The logits before each fed token, token by token with transformers' cache."""
    with torch.inference_mode():
        output = model(torch.tensor([prompt]), use_cache=True)
        rows = [output.logits[0, -1].double()]
        for token_id in fed[:-1]:
            output = model(torch.tensor([[token_id]]), past_key_values=output.past_key_values, use_cache=True)
            rows.append(output.logits[0, -1].double())
    return rows
