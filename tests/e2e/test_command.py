"""The real command in a process of its own, without a terminal: streams, signals, closed ends, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

import warm

MAV = [sys.executable, "-m", "openmav"]
TOY = ["--backend", "toy", "--prompt", "Hi", "--model"]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "json.schema.json").read_text(encoding="utf-8"))
WAIT = float(os.environ.get("MAV_TEST_WAIT", "120"))  # seconds: a busy machine takes its time to import torch
linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell and signals")


@pytest.fixture(autouse=True)
def own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the log of these runs out of the reader's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mav" / "log" / "mav.log"


mav = warm.run


def cold(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """As a user starts it, imports and all."""
    return subprocess.run([*MAV, *args], capture_output=True, text=True, encoding="utf-8", timeout=WAIT, check=False, **options)


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $MAV is the command on the toy backend."""
    command = " ".join([*MAV, *TOY])
    return subprocess.run(["bash", "-c", f"MAV='{command}'\n{line}"], capture_output=True, text=True, timeout=WAIT, check=False)


def test_a_pipe_gets_the_text_and_stderr_one_line() -> None:
    done = cold(*TOY, "toy")
    assert done.returncode == 0
    assert done.stdout.startswith(" it is a truth [bold] [/][red]red[/red]\x1b[2J")
    assert "😀中文字宽" in done.stdout
    assert done.stdout.endswith(" end.\n")
    assert re.fullmatch(
        r"39 tokens · [\d.]+ tokens/s · mean surprisal [\d.]+ nats · perplexity [\d.]+ · the model ended the text\n", done.stderr
    )


def test_json_lines_are_what_the_documentation_says() -> None:
    done = mav(*TOY, "toy", "--json", "--max-new-tokens", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    check = fastjsonschema.compile(SCHEMA)
    for line in lines:
        check(line)
    assert [line["type"] for line in lines] == ["header", "step", "step", "step", "end"]
    assert lines[-1]["reason"] == "length"


def test_the_bundled_model_says_nothing_but_its_text() -> None:
    done = cold("--max-new-tokens", "3", "--json", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    head, *steps, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert head["model"]["name"] == "demo"
    assert head["prompt"]["text"] == "It is a truth universally acknowledged, that"
    assert [step["index"] for step in steps] == [0, 1, 2]
    assert end["tokens"] == 3


@posix
@pytest.mark.parametrize("flag", ["--json", "--plain"])
def test_a_reader_that_goes_early_ends_it_quietly(flag: str) -> None:
    with Run(*TOY, "toy?endless=1", "--max-new-tokens", "800", flag) as run:
        run.out.read(20)
        run.out.close()
        assert run.err.read() == ""
        assert run.wait() == 0


@posix
def test_closed_streams() -> None:
    done = shell("$MAV toy <&-")
    assert done.returncode == 0
    assert done.stdout.endswith(" end.\n")
    done = shell("$MAV toy 2>&-")
    assert done.returncode == 0
    assert done.stdout.endswith(" end.\n")
    done = shell("$MAV toy >&-")
    assert (done.returncode, done.stderr) == (2, "mav: stdout is closed; there is nowhere to write to\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    done = shell("$MAV toy > /dev/full")
    assert (done.returncode, done.stderr) == (2, "mav: cannot write to stdout: No space left on device\n")


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("after", [pytest.param(0, marks=linux), 1, 3])
def test_a_signal_ends_json_lines_whole(number: int, code: int, after: int) -> None:
    """After no line (while torch is imported), after the header, after two tokens."""
    with Run(*TOY, "toy?endless=1&slow=0.05", "--json", "--max-new-tokens", "800", warm_up=after > 0) as run:
        early = [run.out.readline() for _ in range(after)]
        if not early:
            wait_for_torch(run.pid)
        os.kill(run.pid, number)
        rest, err = run.out.read(), run.err.read()
        assert err == ""
        assert run.wait() == code
    lines = [json.loads(line) for line in [*early, *rest.splitlines()]]
    assert lines[-1]["type"] == "end"
    assert lines[-1]["reason"] == "interrupt"
    assert lines[-1]["tokens"] == sum(line["type"] == "step" for line in lines)


@posix
def test_a_signal_ends_plain_text_with_a_summary() -> None:
    with Run(*TOY, "toy?endless=1&slow=0.05", "--max-new-tokens", "800") as run:
        early = run.out.read(6)
        os.kill(run.pid, signal.SIGINT)
        rest, err = run.out.read(), run.err.read()
        assert run.wait() == 130
    assert (early + rest).endswith("\n")
    assert err.endswith("· interrupted\n")
    assert err.count("\n") == 1


@linux
def test_a_reader_that_reads_nothing_does_not_stop_ctrl_c() -> None:
    """The pipe is full and the writer stuck: the second Ctrl-C ends it."""
    command = [*MAV, *TOY, "toy?endless=1", "--json", "--max-new-tokens", "900"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(int(WAIT) * 2):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT) if _full(process) else None
        if process.poll() is not None:
            break
    assert process.wait(timeout=1) == 130
    process.communicate(timeout=WAIT)


def _full(process: subprocess.Popen[str]) -> bool:
    """Whether the process sleeps in a write to a pipe."""
    return "pipe" in Path(f"/proc/{process.pid}/wchan").read_text()


class Run:
    """A command that runs: its process, what it writes, its end. `warm_up`: as `warm.start` starts it, else as a user does."""

    def __init__(self, *args: str, warm_up: bool = True) -> None:
        self._process: subprocess.Popen[bytes] | warm.Started
        ends = [os.pipe(), os.pipe()]
        (out, its_out), (err, its_err) = ends
        if warm_up and warm.FORKS:
            with open(os.devnull) as nothing:
                self._process = warm.start(args, (nothing.fileno(), its_out, its_err))
        else:
            self._process = subprocess.Popen([*MAV, *args], stdout=its_out, stderr=its_err)
        self.pid, self.wait = self._process.pid, lambda: self._process.wait(WAIT)
        for _, end in ends:
            os.close(end)
        self.out, self.err = open(out, encoding="utf-8", buffering=1), open(err, encoding="utf-8")  # noqa: SIM115

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self.out.close()
        self.err.close()


def wait_for_torch(process: int) -> None:
    """Until the process has begun to import torch."""
    maps = Path(f"/proc/{process}/maps")
    for _ in range(int(WAIT) * 100):
        if "libtorch" in maps.read_text():
            return
        time.sleep(0.01)
    raise AssertionError("the process never began to import torch")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([*TOY, "toy?context=8", "--prompt", "a longer prompt"], 2, "has 15 tokens and the context of toy?context=8 holds 8"),
        ([*TOY, "toy?fail=2"], 1, "internal error: RuntimeError: the toy failed, as its switch fail=N asks"),
        ([*TOY, "toy", "--top-p", "2"], 2, "top-p"),
        ([*TOY, "toy", "--chat"], 2, "no chat template"),
        (["--model", "{folder}"], 2, "{folder}"),
        (["--model", "no/such-model-anywhere"], 2, "no/such-model-anywhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(args: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "empty"
    folder.mkdir()
    done = mav(*[arg.format(folder=folder) for arg in args])
    assert done.returncode == code
    assert words.format(folder=folder) in done.stderr
    assert done.stderr.startswith("mav: ")
    assert done.stderr.count("\n") == 1


def test_an_internal_error_leaves_its_traceback_in_the_log(own_log: Path) -> None:
    done = mav(*TOY, "toy?fail=1")
    assert str(own_log) in done.stderr
    assert "the toy failed" in own_log.read_text(encoding="utf-8")


def test_output_is_utf_8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("LC_ALL", "C")
    done = cold(*TOY, "toy")
    assert done.returncode == 0
    assert "文字" in done.stdout


def test_a_prompt_through_a_pipe() -> None:
    done = mav("--backend", "toy", "--model", "toy", "--prompt-file", "-", "--json", "--max-new-tokens", "1", input="çé\n")
    assert json.loads(done.stdout.splitlines()[0])["prompt"]["text"] == "çé"


def test_each_token_stays_as_long_as_asked() -> None:
    done = mav(*TOY, "toy", "--json", "--max-new-tokens", "5", "--refresh-rate", "0.2")
    assert json.loads(done.stdout.splitlines()[-1])["seconds"] >= 1.0
