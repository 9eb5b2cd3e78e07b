"""llama.cpp's RPC workers: two of them, on the loopback, give the numbers of a run without any; and what is said once one dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
pytest.importorskip("gguf", reason="gguf is not installed: no file for the backend llamacpp could be written")

from openmav.backends.base import Frame, LoadOptions
from openmav.backends.llamacpp import load, native
from openmav.backends.llamacpp.graph import Graph
from openmav.backends.llamacpp.head_checks import ELSEWHERE
from openmav.backends.llamacpp.native import F32, Tensor, arena
from openmav.backends.sites import SITES
from openmav.engine.client import EngineSource
from openmav.errors import LoadError
from openmav.settings import DEMO, Settings
from openmav.settings.interventions import parse
from openmav.system.logs import log_path

WITHOUT = "llama-cpp-python was built without RPC (CMAKE_ARGS=-DGGML_RPC=ON): its workers were not tested"
WORKER = """
import ctypes, sys
from openmav.backends.llamacpp import native
ggml = native.load().ggml
start = ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_reg_by_name(b"RPC"), b"ggml_backend_rpc_start_server")
kinds = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p))
devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(0))
ctypes.CFUNCTYPE(None, *kinds)(start)(sys.argv[1].encode(), None, 1, 1, devices)
"""
PROMPT = "It is a truth universally acknowledged, that a single man in possession"
needs_rpc = pytest.mark.skipif(not native.load().llama.llama_supports_rpc(), reason=WITHOUT)


class Worker:
    """A process that serves the CPU."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.name = f"127.0.0.1:{free.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, self.name], env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self) -> None:
        host, port = self.name.split(":")
        for _ in range(600):
            assert self.process.poll() is None, "the worker did not start"
            try:
                socket.create_connection((host, int(port))).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the worker did not listen")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def two_workers() -> Iterator[list[Worker]]:
    started = [Worker(), Worker()]
    try:
        for worker in started:
            worker.wait()
        yield started
    finally:
        for worker in started:
            worker.kill()


@pytest.fixture(scope="module")
def names() -> Iterator[tuple[str, ...]]:
    with two_workers() as started:
        yield tuple(worker.name for worker in started)


def assert_same(one: Frame, other: Frame) -> None:
    assert np.array_equal(one.raw, other.raw)
    compared = 0
    for site in sorted(SITES - {"router.experts", "router.weights", "other.out"}):
        for a, b in zip(one.rows(site), other.rows(site), strict=True):
            assert np.array_equal(a, b, equal_nan=True), site
            compared += 1
    assert compared == 6 * (len(SITES) - 3)
    rows = np.stack([np.asarray(row) for row in one.rows("residual.after")])
    assert np.array_equal(one.head.logits(rows), other.head.logits(rows))
    best = int(np.argmax(one.raw))
    a, b = (frame.head.directions(np.asarray(frame.last_row), [best], np.asarray(frame.raw)) for frame in (one, other))
    assert np.array_equal(a.vectors, b.vectors)


@needs_rpc
def test_two_workers_give_the_bits_of_a_run_without_any(names: tuple[str, ...]) -> None:
    here = load(DEMO, LoadOptions(threads=1))
    there = load(DEMO, LoadOptions(threads=1, rpc=names))
    try:
        assert (here.info.device, there.info.device) == ("cpu", "rpc")
        assert ("workers", ", ".join(names)) in there.describe()
        assert there.missing == {**here.missing, "head.neurons": dict.fromkeys(range(6), ELSEWHERE)}
        assert here.missing.keys() == {"router.experts", "router.weights"}
        assert all(check.good for check in there.checks())
        ids, want = here.encode(PROMPT), frozenset(SITES)
        one, other = here.prefill(ids, want), there.prefill(ids, want)
        assert_same(one, other)
        hidden, last = other.rows("mlp.hidden")[0], other.last_row
        assert one.head.neuron_tokens(0, [3], hidden, last, 4) is not None
        assert other.head.neuron_tokens(0, [3], hidden, last, 4) is None
        for token in ids[:6]:
            assert_same(here.decode_one_token(token, want), there.decode_one_token(token, want))
        changes = [parse("ablate L2.H1"), parse("ablate L4.mlp"), parse("amplify L1=2")]
        mine, theirs = (model.intervened(changes, ids) for model in (here, there))
        plain = here.prefill(ids, want).raw.copy()
        changed = mine.prefill(ids, want)
        assert not np.array_equal(changed.raw, plain)
        assert_same(changed, theirs.prefill(ids, want))
    finally:
        there.close()
        here.close()


@needs_rpc
def test_a_model_without_workers_stays_here_after_one_with_them(names: tuple[str, ...]) -> None:
    load(DEMO, LoadOptions(threads=1, rpc=names)).close()
    after = load(DEMO, LoadOptions(threads=1))
    try:
        assert after.info.device == "cpu"
    finally:
        after.close()
    with pytest.raises(LoadError, match="built without an accelerator"):
        load(DEMO, LoadOptions(gpu_layers=2))


@needs_rpc
def test_one_who_speaks_another_language_is_refused() -> None:
    other = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    other += "while True:\n    c, _ = s.accept(); c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n' * 9); c.close()"
    with subprocess.Popen([sys.executable, "-c", other], stdout=subprocess.PIPE, text=True) as stranger:
        try:
            name = f"127.0.0.1:{stranger.stdout.readline().strip()}"
            with pytest.raises(LoadError, match=f"{name} of --rpc is no RPC worker of this llama.cpp's version") as refused:
                load(DEMO, LoadOptions(rpc=(name,)))
            assert "\n" not in str(refused.value)
        finally:
            stranger.kill()


@needs_rpc
def test_a_worker_that_dies_ends_a_command_with_one_line() -> None:
    with two_workers() as started:
        flags = ["--plain", "--backend", "llamacpp", "--max-new-tokens", "2000", "--refresh-rate", "0.05", "--threads", "1"]
        command = [sys.executable, "-m", "openmav", *flags, "--rpc", ",".join(worker.name for worker in started)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as run:
            assert run.stdout is not None
            assert run.stdout.read(8)
            started[1].kill()
            _, said = run.communicate(timeout=60)
        assert said.decode() == f"mav: the worker {started[1].name} of --rpc is gone; start it again, and then the run\n"
        assert run.returncode == 1


@needs_rpc
def test_a_worker_that_dies_fails_the_app_s_engine_with_the_same_line() -> None:
    with two_workers() as started:
        names = tuple(worker.name for worker in started)
        settings = Settings(backend="llamacpp", rpc=names, max_new_tokens=2000, refresh_rate=0.05, threads=1)
        source = EngineSource(settings, str(log_path()))
        try:
            while not (now := source.snapshot()).steps:
                assert now.status != "failed", now.error
                time.sleep(0.02)
            started[0].kill()
            source._reader.join(60)
            end = source.snapshot()
            assert (end.status, source.exit_code) == ("failed", 1)
            assert end.error == f"the worker {names[0]} of --rpc is gone; start it again, and then the run"
            assert len(end.steps) >= 1
        finally:
            source.close()


def test_a_result_s_copy_for_another_device_is_followed_to_the_result() -> None:
    """As llama.cpp makes and names them; a copy of an input, or of another shape, is none of a result."""
    library = native.load()
    ggml = library.ggml
    context = arena(library, 1 << 20)
    try:
        tensors = {
            name: ggml.ggml_new_tensor_4d(context, F32, 4, rows, 1, 1)
            for name, rows in (("a", 1), ("GPU0#x#0", 1), ("GPU0#y#0", 1), ("GPU0#x#1", 2))
        }
        for name, address in tensors.items():
            ggml.ggml_set_name(address, name.encode())
        first, again, second = (ggml.ggml_add(context, tensors["a"], tensors["a"]) for _ in range(3))
        for address, name in ((first, b"x"), (again, b"x"), (second, b"z")):
            ggml.ggml_set_name(address, name)
        takes = [ggml.ggml_add(context, tensors[name], tensors["a"]) for name in ("GPU0#x#0", "GPU0#y#0", "GPU0#x#1")]
        later = ggml.ggml_add(context, tensors["GPU0#x#0"], tensors["a"])
        graph = Graph(library, [first, again, second, *takes, later])
        sources = [graph.at(address).sources[0] for address in takes]
        assert sources == [again, tensors["GPU0#y#0"], tensors["GPU0#x#1"]], "the newest result of that name"
        assert [node.address for node in graph.consumers[again]] == [takes[0], later]
        assert not graph.at(again).is_leaf
        vars(graph)["is_host"] = False
        assert graph.last_read(graph.at(again)) == graph.at(takes[0]).index - 1, "another result may be in its memory once it is copied"
        assert Tensor.from_address(takes[0]).src[0] == tensors["GPU0#x#0"], "llama.cpp's own graph is as it was"
    finally:
        ggml.ggml_free(context)
