"""The library's front door."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import openmav
from openmav.mav import MAV, watch


def test_watch_yields_steps_and_can_be_left_early() -> None:
    session = watch("Hi", "toy", backend="toy", max_new_tokens=3, measures=["mlp_norm"])
    steps = list(session)
    assert [step.token for step in steps] == [" it", " is", " a"]
    assert steps[0].values.keys() == {"mlp_norm"}
    assert session.reason == "length"
    session.back(2)
    assert next(iter(session)).token == " is"


def test_watch_samples_as_told() -> None:
    def text(seed: int) -> str:
        return "".join(step.token for step in watch("Hi", "toy?endless=1", backend="toy", max_new_tokens=30, temp=3.0, top_k=0, seed=seed))

    assert text(1) == text(1) != text(2)


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"top_p": 2}, {"prompt": ""}, {"aggregation": "l1"}, {"measures": ["magic"]}])
def test_what_makes_no_sense_is_a_usage_error(settings: dict[str, Any]) -> None:
    with pytest.raises(openmav.UsageError):
        watch(**{"prompt": "Hi", "model": "toy", "backend": "toy", **settings})
    with pytest.raises(TypeError, match="temperture"):
        watch("Hi", temperture=1)


def test_a_model_in_memory_is_left_as_it_was(tiny_llama: Any, id_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_llama.train()
    before = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    MAV(None, "Hi", 4, model_obj=tiny_llama, tokenizer_obj=id_tokenizer)
    out = capsys.readouterr().out
    assert "4 tokens · " in out
    assert tiny_llama.training
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())
    session = watch("Hi", tiny_llama, id_tokenizer, max_new_tokens=2)
    assert session.info.name == "LlamaForCausalLM"
    assert len(list(session)) == 2
    session.close()
    with pytest.raises(openmav.UsageError, match="tokenizer"):
        watch("Hi", tiny_llama)
    tiny_llama.eval()


def test_mav_prints_the_text_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    MAV("toy", "Hi", max_new_tokens=4, backend="toy", temp=0.0, top_k=50, selected_panels=["generated_text"], refresh_rate=0.2)
    out = capsys.readouterr().out
    assert out.startswith(" it is a truth\n4 tokens · ")
    with pytest.raises(openmav.UsageError, match="unknown panel"):
        MAV("toy", "Hi", backend="toy", selected_panels=["nothing"])
