"""What compiled libraries write to descriptors 1 and 2 reaches neither a terminal nor the reader's stdout, and the log as symbols only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openmav.engine import EngineSource
from openmav.settings import Settings
from openmav.system import native_output

POWER = tuple("\x1b\x07\x9b\u202e")
TOY = ["--backend", "toy", "--model", "toy", "--prompt", "Hi"]
LOUD = '''"""x"""
import os
import numpy as np
TITLE = "x"
HELP = "x"
NEEDS = ()
def compute(frame, context):
    for descriptor in (1, 2):
        os.write(descriptor, "NATIVE \\x1b]52;c;aGk=\\x07 \\x9b31m \\u202e evil".encode() + b"\\xff\\n")
    print("PRINTED \\x1b[2J")
    return np.zeros(2)
'''


@pytest.fixture
def loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "own.py"
    file.write_text(LOUD, encoding="utf-8")
    return file


def log_of(folder: Path) -> str:
    (log,) = folder.rglob("mav.log")
    assert not list(folder.rglob("native-*"))
    text = log.read_text(encoding="utf-8")
    assert not any(char in text for char in POWER)
    return text


@pytest.mark.skipif(sys.platform != "linux", reason="the log's place is told to Linux only")
@pytest.mark.parametrize("face", ["--plain", "--json"])
def test_a_run_in_this_process(loud: Path, tmp_path: Path, face: str) -> None:
    command = [sys.executable, "-m", "openmav", *TOY, face, "--max-new-tokens", "2", "--measure", str(loud)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    for stream in (done.stdout, done.stderr):
        assert b"NATIVE" not in stream
        assert b"PRINTED" not in stream
    if face == "--json":
        assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["header", "step", "step", "end"]
    log = log_of(tmp_path)
    assert log.count("NATIVE ␛]52;c;aGk=␇ \\x9b31m \\u202e evil\\xff\n") == 4
    assert log.count("PRINTED ␛[2J") == 2


@pytest.mark.parametrize("crash", ["", "os.abort()"])
def test_the_engines_process_also_where_it_crashes(loud: Path, tmp_path: Path, crash: str) -> None:
    loud.write_text(LOUD.replace("    return np", f"    {crash}\n    return np"), encoding="utf-8")
    log = tmp_path / "mav.log"
    source = EngineSource(
        Settings(backend="toy", model="toy", prompt="Hi", max_new_tokens=1, measures=("own",), measure_files=(str(loud),)), str(log)
    )
    end = time.monotonic() + 60
    while source.snapshot().status not in ("ended", "failed") and time.monotonic() < end:
        time.sleep(0.05)
    assert source.snapshot().status == ("failed" if crash else "ended"), source.snapshot().error
    source.close()
    text = log_of(tmp_path)
    assert text.count("NATIVE ␛]52;c;aGk=␇") == 2
    assert "PRINTED ␛[2J" in text


def test_what_a_process_that_is_gone_left_is_taken_by_the_next(tmp_path: Path) -> None:
    log = tmp_path / "mav.log"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"native-{gone.pid}.raw").write_bytes(b"\x1b[31mlast words")
    other = tmp_path / f"native-{os.getppid()}.raw"
    other.write_bytes(b"busy")
    (tmp_path / "native-x.raw").write_bytes(b"")
    native_output.collect_left(log)
    assert log.read_text(encoding="utf-8") == "␛[31mlast words\n"
    assert os.name == "nt" or other.read_bytes() == b"busy"
    (tmp_path / "mav.log").unlink()
    (tmp_path / f"native-{gone.pid}.raw").write_bytes(b"x" * (native_output.MOST + 5))
    native_output.collect(log, gone.pid)
    assert log.stat().st_size == native_output.MOST + 1


def test_where_there_can_be_no_file_it_goes_nowhere(tmp_path: Path) -> None:
    descriptor = native_output.open_file(tmp_path / "nowhere" / "mav.log")
    os.write(descriptor, b"x")
    os.close(descriptor)
    assert not list(tmp_path.iterdir())
