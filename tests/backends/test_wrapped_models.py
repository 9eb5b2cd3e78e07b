"""A model as its owner has it, compiled, checkpointed or with adapters, is shown with its own numbers, or refused in one line."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backends.owners_model import build, generated, tokens_of
from fakes import IdTokenizer
from openmav import UsageError, watch
from openmav.backends.transformers import wrap


def compiled_outside(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def compiled_inside(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def compiled_forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_layers(model: Any) -> Any:
    for layer in model.model.layers:
        layer.compile(backend="eager")
    return model


def checkpointed(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
    model.config.use_cache = False
    return model


@pytest.mark.parametrize("around", [compiled_outside, compiled_inside, compiled_forward, compiled_layers, checkpointed, nn.DataParallel])
def test_a_model_as_a_training_loop_has_it(around: Any) -> None:
    expected = generated(build(), "to be or", 6)
    plain = [*watch("to be or", build(), IdTokenizer(), max_new_tokens=6)]
    model = around(build())
    with watch("to be or", model, IdTokenizer(), max_new_tokens=6) as session:
        steps = list(session)
        assert [step.token_id for step in steps] == expected
        for ours, theirs in zip(steps, plain, strict=True):
            assert np.array_equal(ours.values["mlp_norm"], theirs.values["mlp_norm"])
        notes = " ".join(session.info.notes)
    assert ("torch.compile" in notes) == ("compiled" in around.__name__)
    assert ("DataParallel" in notes) == (around is nn.DataParallel)


def adapter(**changed: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(
        **{
            "r": 4,
            "target_modules": ["q_proj", "down_proj"],
            "lora_dropout": 0.3,
            "init_lora_weights": False,
            "task_type": "CAUSAL_LM",
            **changed,
        }
    )


@pytest.mark.parametrize("how", ["peft", "add_adapter", "inner"])
def test_adapters_are_part_of_the_numbers(how: str) -> None:
    peft = pytest.importorskip("peft")
    model = build()
    plain = generated(model, "to be or", 8)
    torch.manual_seed(4)
    wrapped: Any = model
    if how == "add_adapter":
        model.add_adapter(adapter())
    else:
        wrapped = peft.get_peft_model(model, adapter())
        wrapped = wrapped.train() if how == "peft" else wrapped.get_base_model().train()
    expected = generated(wrapped, "to be or", 8)
    with watch("to be or", wrapped, IdTokenizer(), max_new_tokens=8) as session:
        assert tokens_of(session) == expected != plain
        assert any("adapter default" in note for note in session.info.notes)


def test_an_adapter_that_acts_outside_of_the_model_is_refused() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(UsageError, match=r"this adapter \(PROMPT_TUNING\) acts outside"):
        watch("to be or", model, IdTokenizer())


def test_what_is_no_model_is_one_line() -> None:
    class Shell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pretrained_model = build()

    for model, line in (
        (Shell(), "give the one inside it"),
        (nn.Linear(2, 2), "Linear is no transformers model"),
        (object(), "no transformers"),
    ):
        with pytest.raises(UsageError, match=line) as error:
            wrap(model, None)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_an_adapter_that_is_put_in_later_asks_for_a_new_session() -> None:
    model = build()
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=4)
    session.step()
    before = model.model.layers[0].mlp.down_proj
    model.model.layers[0].mlp.down_proj = nn.Sequential(before)
    try:
        with pytest.raises(UsageError, match="modules were replaced"):
            session.step()
    finally:
        model.model.layers[0].mlp.down_proj = before
