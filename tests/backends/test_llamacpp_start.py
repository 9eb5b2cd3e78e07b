"""A start on llama.cpp: the first token comes without torch and transformers, which take most of a start to be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openmav.generation.opening import open_session
from openmav.plugins import registry
from openmav.settings import Settings

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
EVERY = tuple(registry.names("measures"))
SESSION = """
import sys
from openmav.generation.opening import open_session
from openmav.settings import CORE_MEASURES, Settings
with open_session(Settings(measures=WANTED, max_new_tokens=2)) as session:
    assert session.info.backend == "llamacpp", session.info.notes
    first = next(iter(session))
assert {*WANTED} <= first.values.keys() | session.info.missing.keys()
print([name for name in ("torch", "transformers", "llama_cpp.llama") if name in sys.modules])
import llama_cpp
assert llama_cpp.Llama and llama_cpp.llama_decode
"""
ENGINE = """
import time
from openmav.engine.client import EngineSource
from openmav.settings import Settings
if __name__ == "__main__":
    source = EngineSource(Settings(max_new_tokens=2, threads=1))
    try:
        while not (now := source.snapshot()).steps or now.info is None:
            assert now.status != "failed", now.error
            time.sleep(0.01)
        print(now.info.backend, now.info.notes)
    finally:
        source.close()
"""


def run(*command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, **env}, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def neither(tmp_path: Path) -> dict[str, str]:
    """An environment whose processes can import neither of them."""
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text(f'raise ImportError("{name} was imported")')
    return {"PYTHONPATH": os.pathsep.join((str(tmp_path), *filter(None, sys.path)))}


@pytest.mark.parametrize("measures", ["CORE_MEASURES", repr(EVERY)], ids=["default", "all"])
def test_neither_torch_nor_transformers_is_imported_with_these_measures(measures: str) -> None:
    assert run("-c", SESSION.replace("WANTED", measures)).split() == ["[]"]


def test_the_command_and_the_app_s_engine_run_the_bundled_model_without_them(tmp_path: Path, neither: dict[str, str]) -> None:
    assert "\n" in run("-m", "openmav", "--plain", "--max-new-tokens", "2", **neither)
    (tmp_path / "engine.py").write_text(ENGINE)
    assert run(str(tmp_path / "engine.py"), **neither).split() == ["llamacpp", "()"]


def test_the_bundled_model_has_no_less_than_in_transformers() -> None:
    settings = Settings(prompt="It is a truth universally acknowledged, that", measures=EVERY, max_new_tokens=3, threads=1)
    with open_session(settings) as own, open_session(Settings(**{**vars(settings), "backend": "transformers"})) as other:
        assert (own.info.backend, other.info.backend) == ("llamacpp", "transformers")
        for a, b in zip(own, other, strict=True):
            assert a.token_id == b.token_id
            assert a.values.keys() == b.values.keys()
            for name, value in b.values.items():
                assert a.values[name].shape == value.shape, name
                assert np.array_equal(np.isnan(a.values[name]), np.isnan(value)), name
        assert own.info.missing.keys() == other.info.missing.keys()


OWN = """
from torch import Tensor
TITLE, NEEDS = "tensors", ("residual.after",)
def compute(frame, context):
    given = (frame.logits, context.logits, context.probs, context.sampled_probs, context.top_ids, *frame.sites["residual.after"])
    assert all(isinstance(one, Tensor) for one in given), [type(one) for one in given]
    return frame.last_residual.abs().max()[None].numpy()
"""


def test_somebody_s_own_measure_gets_tensors(tmp_path: Path) -> None:
    (tmp_path / "tensors.py").write_text(OWN)
    files = (str(tmp_path / "tensors.py"),)
    settings = Settings(prompt="It is", measures=("tensors", "residual_norm"), measure_files=files, aggregation="max_abs", max_new_tokens=1)
    with open_session(settings) as session:
        step = session.step()
    assert not session.broken
    assert step.values["tensors"][0] == step.values["residual_norm"][-1]
