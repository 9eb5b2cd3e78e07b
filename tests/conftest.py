"""Fixtures that several layers of tests share: small models in memory, the demo model, the real one."""

from __future__ import annotations

import functools
import gc
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy one changes no verdict
settings.load_profile("any machine")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tiny models, here and in children: several threads only wait for each other
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs behind it; the commands under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["MAV_CONFIG"] = os.devnull  # the file of whoever runs the tests must not change them
REAL = Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct"


def pytest_collection_finish() -> None:
    gc.freeze()  # torch, transformers and the tests themselves stay: no collection of garbage need look through them again


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        terminalreporter.write_line("llama.cpp is not installed: the tests of its backend did not run (make llamacpp)")


@pytest.fixture(autouse=True)
def _left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which a model that mav ran, or the process around it, is not as it was; see as_it_was.py.

    A test that changes a model itself while mav runs it says so with the marker `changes_model`.
    """
    runs_models = "openmav.backends.transformers.backend" in sys.modules or "backends" in request.path.parts
    if not runs_models or request.node.get_closest_marker("changes_model"):
        yield
        return
    from as_it_was import Checker, checking

    checker = Checker()
    with checking(checker):
        yield
    found = [] if request.node.get_closest_marker("changes_model") else checker.found()
    assert not found, f"not left as it was: {', '.join(found[:20])}"


@pytest.fixture
def warm_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines begin with the model's libraries imported, where the system can fork: a test of what they do need not wait for that."""
    if "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["openmav.generation.opening", "openmav.backends.toy", "openmav.backends.transformers"])
        monkeypatch.setattr("openmav.engine.client.multiprocessing.get_context", lambda _: context)


@pytest.fixture
def warm_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat templates are rendered in a fork of this process, where the system can fork: transformers need not be imported for each."""
    import warm

    if warm.FORKS:
        import jinja2.sandbox  # noqa: F401
        import transformers.utils.chat_template_utils  # noqa: F401

        from warm_templates import SECONDS, Forks

        monkeypatch.setattr("openmav.backends.shared.chat_rendering.subprocess", Forks)
        monkeypatch.setattr("openmav.backends.shared.chat_rendering.SECONDS", SECONDS)


@pytest.fixture(scope="session")
def quick_gguf() -> Iterator[None]:
    """Of a GGUF file transformers reads the header three times, and makes a table of names for each module; here each is made once."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader
    read = functools.cache(lambda path, _made, _size: reader(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map))
        patch.setattr(gguf, "GGUFReader", lambda path: read(str(path), os.stat(path).st_mtime_ns, os.stat(path).st_size))
        yield


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The real test model; `make real-model` fetches it, and CI does so before the tests."""
    if not (REAL / "tokenizer.json").exists():
        if os.environ.get("CI"):
            pytest.fail("the real test model is not there: run make real-model")
        pytest.skip("the real test model is not there: run make real-model")
    return REAL


@pytest.fixture(scope="session")
def tiny_llama():
    """A random Llama with grouped queries; strong weights, so that its parts differ clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=700,
        initializer_range=0.2,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def id_tokenizer() -> object:
    from fakes import IdTokenizer

    return IdTokenizer()
