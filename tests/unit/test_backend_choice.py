"""Which backend runs a model: the one that was named, else llama.cpp for a GGUF file and the bundled model where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from openmav.backends.base import LoadOptions
from openmav.backends.loading.choice import backend_for, backend_for_many
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


def test_a_gguf_file_and_the_bundled_model_go_to_llama_cpp_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        "demo": "llamacpp",
        "x\0.y": "transformers",
    }
    installed(monkeypatch, True)
    assert {name: backend_for("auto", name) for name in names} == names
    assert backend_for("transformers", "x.gguf") == "transformers"
    assert (backend_for("llamacpp", "demo"), backend_for("transformers", "demo")) == ("llamacpp", "transformers")
    assert [backend_for_many(*one) for one in (("auto", "demo"), ("llamacpp", "demo"))] == ["transformers", "llamacpp"]
    assert backend_for_many("auto", "x.gguf") == "auto"
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


class Lacking:
    """A backend without a site that the bundled model has."""

    def __init__(self) -> None:
        self.missing = {"router.experts": {0: "no router"}, "mlp.hidden": {3: "it was not found"}}
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("problem", ["it fails its test", "it lacks a site"])
def test_the_bundled_model_runs_in_transformers_and_says_why_where_llama_cpp_fails(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking, asked = Lacking(), []

    def load(name: str, *_options: object) -> Lacking:
        asked.append(name)
        if problem == "it fails its test":
            raise LoadError("its tensors have another layout: data")
        return lacking

    monkeypatch.setattr("openmav.backends.llamacpp.load", load)
    monkeypatch.setattr("openmav.generation.opening.backend_for", lambda backend, _model: "llamacpp" if backend == "auto" else backend)
    with open_session(Settings(prompt="It is", max_new_tokens=1)) as session:
        assert (asked, session.info.backend, session.settings.backend) == (["demo"], "transformers", "transformers")
        why = (
            "its tensors have another layout: data" if problem == "it fails its test" else "mlp.hidden of layer 3 is none: it was not found"
        )
        assert f"transformers runs the bundled model, since llama.cpp does not: {why}" in session.info.notes
        assert session.step().token
    assert lacking.closed == (problem == "it lacks a site")


def test_who_asks_for_llama_cpp_hears_why_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_options: object) -> None:
        raise LoadError("its tensors have another layout: data")

    monkeypatch.setattr("openmav.backends.llamacpp.load", load)
    with pytest.raises(LoadError, match="another layout"):
        open_session(Settings(prompt="It is", backend="llamacpp"))
