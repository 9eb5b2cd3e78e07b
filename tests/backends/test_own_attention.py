"""Models whose attention is not mav's, or must not be: rows from what they return, and the model left as it was."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backends.families import build
from backends.frames import IDS, feed
from openmav.backends.sites import SITES
from openmav.backends.transformers import wrap
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.checks import passes

WITHOUT_INTERFACE = ("gpt_neo", "gptj", "bloom", "falcon", "falcon_alibi", "mpt")


@pytest.mark.parametrize("name", WITHOUT_INTERFACE)
def test_a_model_with_its_own_attention_tells_its_own_rows(name: str) -> None:
    backend = wrap(build(name), None)
    assert backend.checked.from_outputs
    assert any("attention is the model's own" in note for note in backend.info.notes)
    frame = feed(backend)
    with torch.no_grad():
        expected = build(name)(input_ids=torch.tensor([IDS]), output_attentions=True).attentions
    for row, theirs in zip(frame.sites["attention.probs"], expected, strict=True):
        assert row is not None
        assert float((row - theirs[0, :, -1]).abs().max()) <= 1e-5


def test_a_model_that_computes_something_else_with_mavs_attention_keeps_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a model does that looks at the name of its attention."""
    right = attention.attention

    def wrong(module: nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        return right(module, query * 1.01, *args, **kwargs)

    monkeypatch.setattr(attention, "attention", wrong)
    model = build("llama")
    backend = wrap(model, None)
    monkeypatch.undo()
    assert backend.checked.from_outputs
    assert backend.checked.errors["attention logits"] > 1e-4
    assert model.config._attn_implementation == "eager"
    frame = feed(backend)
    with torch.no_grad():
        expected = build("llama")(input_ids=torch.tensor([IDS]), output_attentions=True)
    assert torch.allclose(frame.logits, expected.logits[0, -1], atol=1e-5)
    for row, theirs in zip(frame.sites["attention.probs"], expected.attentions, strict=True):
        assert torch.allclose(row, theirs[0, :, -1], atol=1e-6)
    bare = wrap(build("llama"), None)
    bare.prefill(IDS[:-1], frozenset())
    assert torch.allclose(bare.decode_one_token(IDS[-1], frozenset()).logits, frame.logits, atol=1e-4)


def test_a_model_that_cannot_run_with_mavs_attention_keeps_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "attention", lambda *a, **k: 1 / 0)
    backend = wrap(build("llama"), None)
    assert backend.checked.from_outputs
    assert all(row is not None for row in feed(backend).sites["attention.probs"])


@pytest.mark.changes_model
def test_long_prompts_keep_no_square_matrix_in_the_fallback() -> None:
    """Rows of a prompt come from its last token alone."""
    model = build("gptj")
    backend = wrap(model, None)
    asked: list[tuple[int, bool]] = []
    forward = model.forward

    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["input_ids"].shape[-1], bool(kwargs.get("output_attentions"))))
        return forward(*args, **kwargs)

    model.forward = types.MethodType(watched, model)
    frame = backend.prefill(IDS, SITES)
    assert asked == [(len(IDS) - 1, False), (1, True)]
    assert frame.sites["attention.probs"][0].shape == (4, len(IDS))


def test_outputs_that_a_model_overwrites_are_copied_in_time() -> None:
    """Falcon adds attention to the MLP's output in place."""
    backend = wrap(build("falcon"), None)
    assert backend.checked.mlp_internals.overwrites
    frame = feed(backend)
    for layer in range(3):
        parts = frame.sites["attention.out"][layer] + frame.sites["mlp.out"][layer]
        change = frame.sites["residual.after"][layer] - frame.sites["residual.before"][layer]
        assert float((parts - change).norm()) <= 1e-5 * float(change.norm())


def test_checks_leave_the_model_as_it_was() -> None:
    for name in ("llama", "gptj", "jamba"):
        model = build(name)
        model.train()
        before = copy.deepcopy(model.config.to_dict())
        state = torch.get_rng_state()
        wrap(model, None).close()
        assert model.config.to_dict() == before
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_rows_that_only_one_side_has_count_as_a_difference() -> None:
    wide, narrow = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.3, 0.2]])
    assert passes.row_difference(wide, narrow) == pytest.approx(0.5)
    assert passes.row_difference(torch.tensor([[0.0, 0.3, 0.2]]), narrow) == pytest.approx(0)
