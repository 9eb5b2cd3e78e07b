"""Adapters inside a model's folder and alone: the numbers are those of peft's own model, or one line says why there are none."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from openmav.backends.base import LoadOptions
from openmav.backends.loading import checkpoint
from openmav.backends.transformers import load
from openmav.errors import LoadError

DEMO = checkpoint.DEMO_FOLDER
IDS = [5, 9, 60, 33, 71, 12, 100, 44, 7]
with_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft not installed")


def adapted(**settings: Any) -> Any:
    """peft's model: the demo with random adapter matrices."""
    import peft

    torch.manual_seed(4)
    base = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager").eval()
    chosen = {"r": 3, "target_modules": ["q_proj", "o_proj", "up_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM", **settings}
    return peft.get_peft_model(base, peft.LoraConfig(**chosen)).eval()


def saved(model: Any, folder: Path, base: str) -> Path:
    model.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": base}))
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0, -1]


def refusal(folder: Path) -> str:
    with pytest.raises(LoadError) as raised:
        load(str(folder), LoadOptions())
    assert "\n" not in str(raised.value)
    return str(raised.value)


@with_peft
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True, "lora_alpha": 2, "bias": "none"}])
@pytest.mark.parametrize("where", ["inside", "alone", "base in the folder", "base beside"])
def test_an_adapter_is_applied(tmp_path: Path, settings: dict[str, Any], where: str) -> None:
    model, folder = adapted(**settings), tmp_path / "tuned"
    if where == "inside":
        shutil.copytree(DEMO, folder)
    place = {"base in the folder": folder / "own", "base beside": tmp_path / "own"}.get(where)
    if place is not None:
        shutil.copytree(DEMO, place)
    saved(model, folder, str(DEMO) if where == "alone" else "someone/own")
    backend = load(str(folder), LoadOptions())
    assert backend.prefill(IDS, frozenset()).logits == pytest.approx(logits(model), abs=1e-4)
    with model.disable_adapter():
        assert (logits(model) - backend.prefill(IDS, frozenset()).logits).abs().max() > 0.1  # the test can tell
    assert any(note == "adapter LORA of tuned is merged into the weights" for note in backend.info.notes)


@with_peft
def test_adapters_that_can_not_be_applied(tmp_path: Path) -> None:
    model = adapted()
    nowhere = saved(model, tmp_path / "nowhere", "/no/such/base")
    assert "its base model /no/such/base is not on this machine" in refusal(nowhere)
    pickled = saved(model, tmp_path / "pickled", str(DEMO))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "pickle" in refusal(pickled)
    (pickled / "adapter_model.bin").unlink()
    assert "incomplete" in refusal(pickled)
    other = Path(shutil.copytree(DEMO, tmp_path / "other"))
    saved(model, other, "x")
    settings = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**settings, "r": 5}))
    assert "does not fit its base model" in refusal(other)
    (other / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": ["q_proj"]}))
    assert "no place for" in refusal(other)
    for claim in ({"r": 10**7}, {"rank_pattern": {"q_proj": 10**7}}, {"peft_type": "ADALORA", "init_r": 10**7, "total_step": 9}):
        (other / "adapter_config.json").write_text(json.dumps({**settings, **claim}))
        assert "claims the rank 10,000,000, for which its weights have no room" in refusal(other)
    (other / "adapter_config.json").write_text("[]")
    assert "not one of peft's" in refusal(other)


@with_peft
def test_without_peft_its_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(adapted(), Path(shutil.copytree(DEMO, tmp_path / "tuned")), str(DEMO))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    assert "pip install 'openmav[adapters]'" in refusal(folder)
