"""What reaches stdout, stderr and the log: no text of somebody else's has power over a terminal, and a full disk is one line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openmav.cli.main import main
from openmav.cli.output import echo
from openmav.system import logs

HOSTILE = "a\x1b]52;c;aGk=\x07b\x9b31mc\x07\u202ed\x7f"
POWER = ("\x1b", "\x07", "\x9b", "\u202e", "\x7f")
full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture(autouse=True)
def own_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that put the log in the place of stderr did so for its process; here it is one of several."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(logs._Screen, "redirected", False)


def harmless(text: str) -> bool:
    return not any(char in text for char in POWER) and all(letter in text for letter in "abcd")


def test_echo_shows_escapes_as_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE)
    assert harmless(capsys.readouterr().out)


def test_errors_show_escapes_as_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (
        ["--model", f"./{HOSTILE}"],
        ["--prompt-file", HOSTILE],
        ["--panel", f"{HOSTILE}.py"],
        ["--measure", HOSTILE],
        ["--backend", HOSTILE],
        ["--device", HOSTILE],
        ["--dtype", HOSTILE],
        ["--layout", HOSTILE],
        ["--steer", HOSTILE],
        ["--ablate", HOSTILE],
        ["--break", HOSTILE],
        ["--max-new-tokens", HOSTILE],
        [f"--{HOSTILE}"],
        [HOSTILE],
        ["attribute", "--backend", HOSTILE],
        ["new", "panel", HOSTILE],
        ["config", HOSTILE],
    ):
        assert main(args) == 2, args
        said = capsys.readouterr()
        assert said.out == "", args
        assert said.err.count("\n") == 1, args
        assert not any(char in said.err for char in POWER), args


def test_the_log_shows_escapes_as_symbols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "log_path", lambda: tmp_path / "mav.log")
    logs.record_failure(ValueError(HOSTILE))
    _, log = logs.open_log()
    with log:
        handler = logging.StreamHandler(log)
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, HOSTILE, None, None))
    text = (tmp_path / "mav.log").read_text(encoding="utf-8")
    assert harmless(text)
    assert text.count("52;c;aGk=") == 2


@full_disk
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["panels"], ["measures"], ["doctor"], ["config", "path"], ["sweep", "--help"]])
def test_a_full_disk_behind_stdout_is_one_line(args: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "openmav", *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert (done.returncode, done.stderr) == (2, "mav: cannot write to stdout: No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_a_closed_pipe_behind_help_is_quiet() -> None:
    shell = f"{sys.executable} -m openmav measures | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_encoding_that_lacks_characters_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openmav", "panels"],
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "generated_text" in done.stdout.decode("utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a FIFO")
def test_a_config_file_that_is_a_pipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    monkeypatch.setenv("MAV_CONFIG", str(pipe))
    assert main(["config", "show"]) == 2
    assert "no regular file" in capsys.readouterr().err
    monkeypatch.setenv("MAV_CONFIG", os.devnull)
    assert main(["config", "show"]) == 0


def test_toml_that_is_nested_too_deeply_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("keys = " + "[" * 100_000 + "]" * 100_000, encoding="utf-8")
    monkeypatch.setenv("MAV_CONFIG", str(file))
    assert main(["config", "show"]) == 2
    assert "nested too deeply" in capsys.readouterr().err
