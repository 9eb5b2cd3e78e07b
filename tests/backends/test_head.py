"""The short way through the head: taken only where it gives the bits of the whole model without its layers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from backends.families import build
from openmav.backends.transformers import wrap


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "olmo2", "mixtral"])
@pytest.mark.parametrize("rows", [1, 3, 30])
def test_the_short_way_gives_the_same_bits(family: str, rows: int) -> None:
    backend = wrap(build(family), None, family)
    head = backend.checked.head
    assert head is not None
    assert head.short is not None
    states = torch.randn(rows, backend.info.width) * torch.logspace(-1, 2, rows)[:, None]
    short = head.logits(states)
    head.short = None
    assert torch.equal(short, head.logits(states))


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_what_bends_the_logits_after_the_head_is_never_left_out(family: str) -> None:
    head = wrap(build(family), None, family).checked.head
    assert head is not None
    assert head.short is None


@pytest.mark.changes_model
def test_a_norm_that_is_put_in_later_is_heard() -> None:
    backend = wrap(build("llama"), None, "llama")
    head = backend.checked.head
    assert head is not None
    states = torch.randn(2, backend.info.width)
    before = head.logits(states)
    with torch.no_grad():
        backend.model.model.norm.weight.mul_(2.0)
    torch.testing.assert_close(head.logits(states), 2 * before)


def test_a_projection_between_norm_and_head_leaves_the_whole_way() -> None:
    config = AutoConfig.for_model(
        "opt",
        vocab_size=128,
        hidden_size=64,
        word_embed_proj_dim=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=128,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    backend = wrap(AutoModelForCausalLM.from_config(config).eval(), None, "opt")
    head = backend.checked.head
    assert head is not None
    assert head.short is None
    frame = backend.prefill(list(range(3, 9)), frozenset({"residual.after"}))
    last = frame.sites["residual.after"][-1]
    assert last is not None
    torch.testing.assert_close(head.logits(last[None])[0], frame.logits, rtol=1e-4, atol=1e-5)
