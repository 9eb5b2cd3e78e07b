"""A library that a variable of the environment keeps from being imported is one line with exit code 2, no internal error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openmav.engine.child_process import _failure
from openmav.system.imports import failed_import


@pytest.mark.parametrize("value", ["x", "", "\x1b[2J"])
def test_a_variable_that_a_library_cant_read_is_one_line(value: str, tmp_path: Path) -> None:
    env = {**os.environ, "HF_HUB_ETAG_TIMEOUT": value, "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "openmav", "--backend", "toy", "--model", "toy", "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mav: huggingface_hub does not import: ValueError: ")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr


def test_it_names_the_library_in_the_models_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_library.py").write_text("def read():\n    return int('x')\nread()\n")
    with pytest.raises(ValueError, match="x") as caught:
        __import__("broken_library")
    failed = _failure(caught.value)
    assert failed.exit_code == 2
    assert failed.line.startswith("broken_library does not import: ValueError: invalid literal")


def test_a_failure_of_mavs_own_is_no_failed_import() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // 0
    assert failed_import(caught.value) == ""
