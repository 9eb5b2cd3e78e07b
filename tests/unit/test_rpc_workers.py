"""--rpc: which addresses it takes, and who refuses it; the workers themselves are in backends/test_llamacpp_rpc.py."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from openmav.backends.base import LoadOptions
from openmav.backends.llamacpp import workers
from openmav.engine.events import first_state
from openmav.errors import LoadError, UsageError
from openmav.generation.opening import open_session
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.recording.facts import read_settings
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.settings import Settings
from openmav.settings.workers import MOST, parse_workers

RUN = subprocess.run


def test_addresses_are_split_at_commas() -> None:
    assert parse_workers(None) == ()
    assert parse_workers("127.0.0.1:50052") == ("127.0.0.1:50052",)
    assert parse_workers("a:1\n") == ("a:1",)
    assert parse_workers("gpu-1.example.org:1, 10.0.0.2:65535") == ("gpu-1.example.org:1", "10.0.0.2:65535")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "host:port"),
        ("localhost", "host:port.*not 'localhost'"),
        ("localhost:", "host:port"),
        (":50052", "host:port"),
        ("a:1,", "host:port.*not ''"),
        ("a:b", "host:port"),
        ("[::1]:50052", "IPv4"),
        ("a b:1", "host:port"),
        ("-a:1", "host:port"),
        ("a:-1", "host:port"),
        ("a:１", "host:port"),
        ("a:0", "must be 1 to 65535"),
        ("a:65536", "must be 1 to 65535"),
        ("a:1,A:1", "twice"),
        (",".join(f"a:{port}" for port in range(1, MOST + 2)), "16 workers at most, not 17"),
    ],
)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_workers(text)
    with pytest.raises(UsageError):
        Settings(rpc=tuple(text.split(",")))


@pytest.mark.parametrize("backend", ["toy", "transformers"])
def test_another_backend_refuses_workers(backend: str) -> None:
    with pytest.raises(LoadError, match=f"--rpc is for --backend llamacpp, and {backend} runs this model"):
        registry.load("backends", backend).load("demo", LoadOptions(rpc=("127.0.0.1:1",)), None)


def test_the_bundled_model_does_not_fall_back_to_a_backend_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_name: str, options: LoadOptions, _progress: object) -> None:
        raise LoadError(f"no {options.rpc[0]}")

    monkeypatch.setattr("openmav.backends.llamacpp.load", load)
    monkeypatch.setattr("openmav.generation.opening.backend_for", lambda _backend, _model: "llamacpp")
    with pytest.raises(LoadError, match=r"^no 127\.0\.0\.1:1$"):
        open_session(Settings(rpc=("127.0.0.1:1",)))


def test_a_recording_chooses_no_worker(tmp_path) -> None:
    asked = Settings(model="toy", prompt="Hi", backend="toy", max_new_tokens=1)
    with open_session(asked) as session:
        state = session.describe(first_state(asked))
        recorder = Recorder(tmp_path / "run.mav", replace(asked, rpc=("127.0.0.1:1",)))
        recorder.update(replace(Snapshot().with_state(state), info=session.info))
        recorder.close()
    with Recording(tmp_path / "run.mav") as recording:
        assert recording.meta["settings"]["rpc"] == ["127.0.0.1:1"]
        assert read_settings(recording.meta["settings"]).rpc == ()


def library(rpc: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        llama=SimpleNamespace(llama_supports_rpc=lambda: rpc), ggml=SimpleNamespace(ggml_backend_reg_by_name=lambda _name: 1)
    )


@pytest.fixture
def port() -> Iterator[int]:
    """Of a listener that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def why_not(monkeypatch: pytest.MonkeyPatch, *names: str, rpc: bool = True, greeting: str = "") -> str:
    monkeypatch.setattr(workers, "GREET", 2.0 if "sleep" in greeting else 30.0)
    monkeypatch.setattr(workers.subprocess, "run", lambda _command, **options: RUN([sys.executable, "-c", greeting], **options))
    with pytest.raises(LoadError) as refused:
        workers.workers_of(library(rpc), LoadOptions(rpc=names))
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_a_library_without_rpc_says_how_to_build_one(monkeypatch: pytest.MonkeyPatch) -> None:
    line = why_not(monkeypatch, "127.0.0.1:1", rpc=False)
    assert 'CMAKE_ARGS="-DGGML_RPC=ON" pip install' in line
    assert workers.workers_of(library(False), LoadOptions()) is None


@pytest.mark.parametrize("options", [LoadOptions(device="cpu", rpc=("a:1",)), LoadOptions(gpu_layers=0, rpc=("a:1",))])
def test_layers_can_not_stay_here_and_go_to_workers(options: LoadOptions) -> None:
    with pytest.raises(LoadError, match="leave one of the two out"):
        workers.workers_of(library(), options)


def test_a_worker_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    line = why_not(monkeypatch, f"127.0.0.1:{port}", f"127.0.0.1:{closed}")
    assert f"127.0.0.1:{closed} of --rpc can't be reached" in line
    assert "nosuch.invalid:1 of --rpc can't be reached" in why_not(monkeypatch, "nosuch.invalid:1")


def test_one_worker_under_two_names_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    line = why_not(monkeypatch, f"127.0.0.1:{port}", f"localhost:{port}")
    assert line == f"127.0.0.1:{port} and localhost:{port} of --rpc are the same worker; name it once"


def test_who_does_not_greet_is_named_in_a_bounded_time(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    name = f"127.0.0.1:{port}"
    assert f"{name} of --rpc does not answer" in why_not(monkeypatch, name, greeting="import time; time.sleep(60)")
    with socket.create_server(("127.0.0.1", 0)) as other:
        second = f"127.0.0.1:{other.getsockname()[1]}"
        line = why_not(
            monkeypatch, name, second, greeting="print('first', flush=True); raise SystemExit('RPC server version mismatch: 1.0.0')"
        )
    assert f"{second} of --rpc is no RPC worker of this llama.cpp's version (RPC server version mismatch: 1.0.0)" in line
