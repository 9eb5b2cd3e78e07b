"""Which backend runs a model: the one that was named, else llama.cpp for a GGUF file where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from openmav.backends.base import LoadOptions
from openmav.backends.loading.choice import backend_for
from openmav.engine.events import first_state
from openmav.errors import LoadError
from openmav.library import open_session
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.settings import Settings


def installed(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    found = importlib.util.find_spec("json") if there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: found)


def test_a_gguf_file_goes_to_llama_cpp_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.GGUF").write_bytes(b"")
    (tmp_path / "both").mkdir()
    for name in ("x.gguf", "config.json"):
        (tmp_path / "both" / name).write_bytes(b"")
    names = {
        "models/x.Q4_1.gguf": "llamacpp",
        "owner/model:x.gguf": "llamacpp",
        str(tmp_path / "one"): "llamacpp",
        str(tmp_path / "both"): "transformers",
        str(tmp_path): "transformers",
        "owner/model": "transformers",
        "demo": "transformers",
        "x\0.y": "transformers",
    }
    installed(monkeypatch, True)
    assert {name: backend_for("auto", name) for name in names} == names
    assert backend_for("transformers", "x.gguf") == "transformers"
    assert backend_for("llamacpp", "demo") == "llamacpp"
    installed(monkeypatch, False)
    assert {backend_for("auto", name) for name in names} == {"transformers"}


def test_without_its_package_the_backend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from openmav.backends.llamacpp import native

    backend = registry.load("backends", "llamacpp")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not installed
    native.load.cache_clear()
    try:
        with pytest.raises(LoadError, match=r"pip install 'openmav\[llamacpp\]', or add --backend transformers"):
            backend.load("x.gguf", LoadOptions(), None)
    finally:
        native.load.cache_clear()


def test_layers_for_an_accelerator_are_refused_elsewhere() -> None:
    for backend in ("toy", "transformers"):
        with pytest.raises(LoadError, match=f"--gpu-layers is for --backend llamacpp, and {backend} runs this model"):
            registry.load("backends", backend).load("demo" if backend == "transformers" else "toy", LoadOptions(gpu_layers=3), None)


def test_a_session_and_its_recording_name_the_backend_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openmav.generation.opening.backend_for", lambda _backend, _model: "toy")
    asked = Settings(model="toy", prompt="Hi", max_new_tokens=1)
    with open_session(asked) as session:
        assert session.settings.backend == "toy"
        recorder = Recorder(tmp_path / "run.mav", asked)
        recorder.update(replace(Snapshot().with_state(session.describe(first_state(asked))), info=session.info))
        recorder.close()
    with Recording(tmp_path / "run.mav") as recording:
        assert recording.meta["settings"]["backend"] == "toy"
