"""The library's front door."""

from __future__ import annotations

import copy
import io
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
    model = copy.deepcopy(tiny_llama).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    MAV(None, "Hi", 4, model_obj=model, tokenizer_obj=id_tokenizer)
    out = capsys.readouterr().out
    assert "4 tokens · " in out
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    session = watch("Hi", model, id_tokenizer, max_new_tokens=2)
    assert session.info.name == "LlamaForCausalLM"
    assert len(list(session)) == 2
    session.close()
    with pytest.raises(openmav.UsageError, match="tokenizer"):
        watch("Hi", model)


def test_mav_prints_the_text_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    MAV("toy", "Hi", max_new_tokens=4, backend="toy", temp=0.0, top_k=50, selected_panels=["generated_text"], refresh_rate=0.2)
    out = capsys.readouterr().out
    assert out.startswith(" it is a truth\n4 tokens · ")
    with pytest.raises(openmav.UsageError, match="unknown panel"):
        MAV("toy", "Hi", backend="toy", selected_panels=["nothing"])


def test_a_stdout_that_lacks_the_letters_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    MAV("toy", "Hi", 20, backend="toy")
    assert b"\\u6587\\u5b57" in raw.getvalue(), "the toy's words hold Chinese characters, which cp1252 lacks"


def test_the_import_paths_of_older_versions_stay() -> None:
    from openmav.constraint import Constraint
    from openmav.settings import constraint

    assert Constraint is constraint.Constraint
    assert (openmav.MAV, openmav.watch) == (MAV, watch)
