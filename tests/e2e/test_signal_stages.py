"""A signal that ends mav leaves the terminal as it was, whatever mav is doing then."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import warm

if os.name == "nt":
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

import fcntl
import pty
import struct
import termios

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ESCAPE = re.compile(rb"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()].")


class Stage(NamedTuple):
    """What the model's name adds, further flags, the words to wait for, the keys to press then, and the seconds to wait after that."""

    model: str = ""
    flags: tuple[str, ...] = ()
    words: bytes = b""
    keys: bytes = b""
    seconds: float = 0.0


STAGES = {
    "start": Stage(),
    "importing": Stage(seconds=0.3),
    "loading": Stage("&load=60", words=b"loading"),
    "prefill": Stage("&slow=60", words=b"reading the prompt"),
    "running": Stage("&slow=0.02", words=b"tok/s"),
    "paused": Stage(flags=("--interactive",), words=b"paused"),
    "dialog": Stage(flags=("--interactive",), words=b"paused", keys=b"e", seconds=0.2),
    "quitting": Stage(flags=("--interactive",), words=b"paused", keys=b"q"),
}


class App:
    """mav in a terminal of its own."""

    def __init__(self, stage: Stage, home: Path) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        env = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(home), "MAV_CONFIG": os.devnull}
        args = ["--backend", "toy", "--model", f"toy?endless=1{stage.model}", "--prompt", "Hi", *stage.flags]
        command = warm.app(*args) if stage.words else [sys.executable, "-m", "openmav", *args]
        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = subprocess.Popen(command, **ends, start_new_session=True, env=env)
        self.seen = b""

    def read(self, seconds: float) -> None:
        if select.select([self.ours], [], [], seconds)[0]:
            self.seen += os.read(self.ours, 2**20)

    def bring_to(self, stage: Stage) -> None:
        end = time.monotonic() + 90
        while stage.words not in ESCAPE.sub(b"", self.seen):
            assert time.monotonic() < end, self.seen[-2000:]
            self.read(0.1)
        os.write(self.ours, stage.keys)
        after = time.monotonic() + stage.seconds
        while time.monotonic() < after:
            self.read(0.05)

    def end(self) -> int:
        """The exit code, once all that it wrote is read."""
        end = time.monotonic() + 90
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            self.read(0.05)
        while select.select([self.ours], [], [], 0.05)[0]:
            self.read(0.0)
        return self.process.returncode

    def is_on(self, mode: bytes) -> bool:
        """Whether the mode, as \\x1b[?25h or l, was left on; False where it was never touched."""
        found = re.findall(rb"\x1b\[\?" + mode + rb"([hl])", self.seen)
        return bool(found) and found[-1] == b"h"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_signal_leaves_the_terminal_as_it_was_at_every_stage(name: str, tmp_path: Path) -> None:
    stage = STAGES[name]
    apps = {number: App(stage, tmp_path) for number in SIGNALS}  # side by side: most of their time is that of the imports
    try:
        for number, app in apps.items():
            app.bring_to(stage)
            app.process.send_signal(number)
        for number, app in apps.items():
            code = app.end()
            allowed = {128 + number}
            if name in ("start", "importing"):
                allowed.add(-number)  # nobody has asked for the signal yet
            if name == "quitting":
                allowed.add(0)
            assert code in allowed, (number, code)
            assert termios.tcgetattr(app.theirs) == app.before, number
            assert not any(app.is_on(mode) for mode in (b"1049", b"1000", b"1003", b"1006", b"1004", b"2004")), number
            assert app.is_on(b"25") or b"\x1b[?25l" not in app.seen, number
            assert b"Traceback" not in app.seen
    finally:
        for app in apps.values():
            app.close()


def held_up(*apps: App) -> None:
    """Brings them to run, each in a terminal that has room for nothing more."""
    for app in apps:
        app.bring_to(STAGES["running"])
    end = time.monotonic() + 60
    for app in apps:
        while select.select([], [app.theirs], [], 0.0)[1]:
            assert time.monotonic() < end
            time.sleep(0.05)
    time.sleep(1.0)  # the app draws ten times a second, and thirty drawings wait before it waits itself


@pytest.mark.slow
def test_a_signal_ends_it_in_a_terminal_that_takes_no_output(tmp_path: Path) -> None:
    apps = {number: App(STAGES["running"], tmp_path) for number in SIGNALS}
    try:
        held_up(*apps.values())
        for number, app in apps.items():
            app.process.send_signal(number)
        for number, app in apps.items():
            assert app.process.wait(60) == 128 + number
            assert termios.tcgetattr(app.theirs) == app.before
    finally:
        for app in apps.values():
            app.close()


@pytest.mark.slow
def test_it_ends_where_such_a_terminal_is_closed(tmp_path: Path) -> None:
    app = App(STAGES["running"], tmp_path)
    try:
        held_up(app)
        os.close(app.theirs)
        os.close(app.ours)
        app.process.send_signal(signal.SIGCONT)  # comes with SIGHUP where a session's terminal goes, and may be answered first
        assert app.process.wait(60) == 128 + signal.SIGHUP
    finally:
        app.ours, app.theirs = os.pipe()
        app.close()
