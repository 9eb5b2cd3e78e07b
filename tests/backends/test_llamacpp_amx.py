"""llama.cpp's kernels for AMX, which some compilers make so that they end the process: tried in another one, and left out where it dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from backends import gguf_files
from openmav.backends.llamacpp import amx
from openmav.backends.loading import gguf_metadata
from openmav.backends.loading.checkpoint import DEMO_FOLDER

pytest.importorskip("gguf")
DIES = "import os, signal; os.kill(os.getpid(), getattr(signal, 'SIGILL', signal.SIGTERM))"
HERE, ELSEWHERE = b"AVX2 = 1 | AMX_INT8 = 1 | OPENMP = 1", b"AVX2 = 1 | OPENMP = 1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model, quantised and not."""
    one = AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32)
    keys = {"rope.dimension_count": one.config.head_dim, "rope.freq_base": one.config.rope_parameters["rope_theta"]}
    keys |= {"attention.layer_norm_rms_epsilon": one.config.rms_norm_eps, "vocab_size": one.config.vocab_size}
    folder = tmp_path_factory.mktemp("amx")
    return {kind: gguf_files.write(one, folder / f"{kind}.gguf", "llama", keys, matrices=kind) for kind in ("Q8_0", "F32")}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the process that tries them runs instead, to be filled; each run takes one."""
    programs: list[str] = []
    run = subprocess.run
    monkeypatch.setattr(amx.subprocess, "run", lambda _command, **options: run([sys.executable, "-c", programs.pop(0)], **options))
    amx._works.cache_clear()
    yield programs
    amx._works.cache_clear()


def native(system: bytes) -> Any:
    return SimpleNamespace(llama=SimpleNamespace(llama_print_system_info=lambda: system))


def test_kernels_that_end_their_process_are_left_out(files: dict[str, Path], tried: list[str]) -> None:
    header = gguf_metadata.parse(files["Q8_0"])
    tried += [DIES, ""]
    assert amx.crashes(native(HERE), header)
    assert amx.crashes(native(HERE), header), "it is tried once"
    amx._works.cache_clear()
    assert not amx.crashes(native(HERE), header)
    assert not tried


def test_nothing_is_tried_without_amx_or_without_weights_for_it(files: dict[str, Path], tried: list[str]) -> None:
    tried.append(DIES)
    assert not amx.crashes(native(ELSEWHERE), gguf_metadata.parse(files["Q8_0"]))
    assert not amx.crashes(native(HERE), gguf_metadata.parse(files["F32"]))
    assert tried == [DIES]


def test_a_quantised_file_reads_a_prompt_and_has_its_lens_whatever_this_processor_does(files: dict[str, Path]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
    code = f"""
from openmav.backends.base import LoadOptions
from openmav.backends.llamacpp import load
model = load({str(files["Q8_0"])!r}, LoadOptions(threads=1))
ids = model.encode("It is a truth universally acknowledged, that a single man in possession of a good fortune") * 2
assert len(ids) > 20
frame = model.prefill(ids, frozenset({{"residual.after"}}))
lens = frame.head.logits(frame.rows("residual.after")[-1][None])[0]
print(abs(lens - frame.raw).max() / abs(frame.raw).max(), sorted(site for site in model.missing if "head" in site))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    error, missing = done.stdout.split(maxsplit=1)
    assert float(error) < 1e-2
    assert missing.strip() == "[]"
