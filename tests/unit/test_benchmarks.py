"""The benchmarks run: a table of two of them, in their smallest size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_the_benchmarks_of_decoding_and_of_the_app_run() -> None:
    command = [sys.executable, "benchmarks/run.py", "--quick", "--only", "decoding", "--only", "app"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    for title in ("Speed kept with everything captured", "Speed kept with the app shown", "Speed kept with a layout shown"):
        rows = run.stdout.partition(f"## {title}")[2].partition("## ")[0]
        assert "tok/s" in rows, run.stdout[-3000:]
