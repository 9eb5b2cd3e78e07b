"""The generation config in a model's folder: it is followed and shown, one that is broken is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from openmav.errors import LoadError
from openmav.generation.opening import open_session
from openmav.settings import Settings
from openmav.settings.sampling import Sampling, SamplingOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled model, to put another generation config beside it."""
    import openmav

    target = tmp_path / "model"
    shutil.copytree(Path(openmav.__file__).parent / "demo" / "model", target)
    return target


def test_a_folders_file_is_followed_and_shown(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from openmav.analysis.doctor.model import examine
    from openmav.record.lines import header

    config = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "no_repeat_ngram_size": 2, "eos_token_id": [0, 14], "num_beams": 2}
    (folder / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    session = open_session(Settings(str(folder), "The ship went", max_new_tokens=12, sampling=SamplingOptions(seed=5)))
    ids = [step.token_id for step in session]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(5)
    given = tokenizer("The ship went", return_tensors="pt")
    assert model.generate(**given, max_new_tokens=12, num_beams=1)[0, given.input_ids.shape[1] :].tolist() == ids
    head = header(session.info, session.prompt, session.settings)
    assert head["sampling"]["stages"] == {"no n-gram": 2.0}
    assert head["sampling"]["temperature"] == 0.8
    assert head["model"]["generation_config"]["top_p"] == 0.95
    session.close()
    lines = {name: value for section in examine(str(folder), "transformers", _options()) for name, value in section.lines}
    assert lines["temperature"] == "0.8"
    assert "not followed" in lines["num_beams"]


def _options() -> Any:
    from openmav.backends.base import LoadOptions

    return LoadOptions()


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "", "[" * 100000])
def test_a_broken_file_is_one_line(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(LoadError) as error:
        open_session(Settings(str(folder), "The ship went"))
    assert "generation_config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_file_all_is_as_before(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    session = open_session(Settings(str(folder), "The ship went", max_new_tokens=2))
    assert session.sampling == Sampling()
    assert session.info.generation_config == {}
    assert session.backend.end_ids
    session.close()
