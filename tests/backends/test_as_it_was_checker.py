"""What compares a model and the process around it with what they were, after each test: it finds what is left in them."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AttentionInterface

import as_it_was
from backends.owners_model import IDS, build
from openmav.backends.transformers import wrap

SITES = frozenset({"residual.after", "attention.out", "mlp.out", "attention.probs", "mlp.hidden"})
CHANGES = {
    "training": lambda model: model.model.layers[0].mlp.eval(),
    "_forward_hooks": lambda model: model.model.layers[2].register_forward_hook(lambda *_: None),
    "_forward_pre_hooks": lambda model: model.lm_head.register_forward_pre_hook(lambda *_: None),
    "forward": lambda model: vars(model.model.layers[0].mlp).update(forward=model.model.layers[0].mlp.forward),
    "config": lambda model: model.set_attn_implementation("eager"),
    "weight": lambda model: model.lm_head.weight.requires_grad_(False),
    "gradient_checkpointing": lambda model: model.gradient_checkpointing_enable(),
    "generation_config": lambda model: setattr(model.generation_config, "top_k", 7),
    "inv_freq": lambda model: model.model.rotary_emb.inv_freq.mul_(2),
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_the_checker_finds_what_is_left_in_a_model(what: str) -> None:
    model = build()
    checker = as_it_was.Checker()
    checker.see(model)
    assert checker.found() == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CHANGES[what](model)
    assert any(fault.endswith(what) or f".{what}" in fault for fault in checker.found())


def test_the_checker_finds_what_is_left_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    checker, logger = as_it_was.Checker(), logging.getLogger("transformers")
    level, threads = logger.level, torch.get_num_threads()
    try:
        with checker.call("a step"):
            torch.rand(1)
            random.random()
            monkeypatch.setenv("TQDM_DISABLE", "yes")
            logger.setLevel(level + 1)
            torch.set_num_threads(threads + 1)
            AttentionInterface.register("left-behind", lambda: None)
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)
        AttentionInterface._global_mapping.pop("left-behind")
    expected = ["attention functions", "environment", "logger transformers", "random state", "threads"]
    assert checker.found() == [f"a step: {name}" for name in expected]


def test_the_checker_counts_a_block_of_several_calls_as_one() -> None:
    """What stands in the model inside the block is not taken for what was there before a call from another thread."""
    checker = as_it_was.Checker()
    with as_it_was.checking(checker):
        backend = wrap(build(), None)
        with backend.ready():
            waiting = threading.Thread(target=backend.prefill, args=(IDS, SITES))
            waiting.start()
            for _ in range(1000):  # until the other thread waits for the model
                if checker._calls == 2:
                    break
                time.sleep(0.001)
        waiting.join()
    assert checker.found() == []


def test_a_hook_that_mav_leaves_fails_a_test(pytester_folder: Path) -> None:
    """A whole test run with a fault put into mav: its one test passes, and the check after it fails."""
    (pytester_folder / "test_fault.py").write_text(
        "from openmav.backends.transformers import TransformersBackend, wrap\n"
        "def test_it(tiny_llama, monkeypatch):\n"
        "    close = TransformersBackend.close\n"
        "    leave = lambda self: (self.model.lm_head.register_forward_hook(lambda *_: None), close(self))\n"
        "    monkeypatch.setattr(TransformersBackend, 'close', leave)\n"
        "    wrap(tiny_llama, None).close()\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(pytester_folder), "."]
    done = subprocess.run(run, cwd=pytester_folder, capture_output=True, text=True, timeout=120, check=False)
    assert "not left as it was: LlamaForCausalLM: lm_head._forward_hooks" in done.stdout
    assert "1 passed, 1 error" in done.stdout


@pytest.fixture
def pytester_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backends"
    folder.mkdir()
    tests = Path(__file__).parents[1]
    text = (tests / "conftest.py").read_text(encoding="utf-8")
    first = "from __future__ import annotations\n"
    text = text.replace(first, f"{first}\nimport sys\nsys.path.insert(0, {str(tests)!r})\n", 1)
    (folder / "conftest.py").write_text(text, encoding="utf-8")
    return folder
