"""A real terminal for tests: a tmux server of its own with one shell in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

import warm

WAIT = float(os.environ.get("MAV_TEST_WAIT", "90"))  # seconds: a busy machine takes its time to import torch
TMUX = shutil.which("tmux")
PROMPT = "READY>"


class Terminal:
    """`run` types a command into the shell; `text` is what stands on the screen now."""

    def __init__(self, width: int = 80, height: int = 24, home: Path | None = None) -> None:
        self.server = f"mav-test-{uuid.uuid4().hex[:8]}"
        environment = {**os.environ, "XDG_STATE_HOME": str(home or "/tmp"), "TERM": "xterm-256color"}
        for name in ("TMUX", "COLUMNS", "LINES"):  # an app that finds a size here does not ask its terminal
            environment.pop(name, None)
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", os.devnull, "new-session", "-d", *size, "env -u ENV sh", env=environment)
        self._tmux("set-option", "-g", "default-terminal", "tmux-256color")
        self.type("PS1='READY''> '; clear")
        self.wait_for(PROMPT)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tmux("kill-server")

    def _tmux(self, *args: str, env: dict[str, str] | None = None) -> str:
        assert TMUX is not None
        return subprocess.run([TMUX, "-L", self.server, *args], capture_output=True, text=True, check=True, env=env, timeout=WAIT).stdout

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def keys(self, *names: str) -> None:
        for name in names:
            self._tmux("send-keys", name)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, pattern: str, seconds: float = WAIT) -> str:
        """The screen once the pattern stands on it. Raises AssertionError with the screen where it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.text()
            if re.search(pattern, text):
                return text
            time.sleep(0.1)
        raise AssertionError(f"no {pattern!r} on the screen:\n{self.text()}")

    def state(self) -> dict[str, str]:
        """What a program must leave as it was: alternate screen, cursor, mouse and the line discipline."""
        names = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_flag")
        values = self._tmux("display-message", "-p", " ".join(f"#{{{name}}}" for name in names)).split()
        tty = self._tmux("display-message", "-p", "#{pane_tty}").strip()
        flag = "-f" if sys.platform == "darwin" else "-F"
        line = subprocess.run(["stty", flag, tty, "-g"], capture_output=True, text=True, check=True).stdout.strip()
        return {**dict(zip(names, values)), "line": line}

    def processes(self) -> list[psutil.Process]:
        """All that runs below the shell."""
        return psutil.Process(int(self._tmux("display-message", "-p", "#{pane_pid}"))).children(recursive=True)

    def process(self, pattern: str) -> psutil.Process:
        """The first process below the shell whose command line matches."""
        return next(p for p in self.processes() if re.search(pattern, " ".join(p.cmdline())))


def wait_until(holds: Callable[[], object], otherwise: str, every: float = 0.1) -> None:
    """Raises AssertionError where it does not come to hold."""
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(every)


def mav(*args: str) -> str:
    """The shell line that runs mav and prints its exit status."""
    return f"{shlex.join([sys.executable, '-m', 'openmav', *args])}; echo status=$?="


def warm_mav(*args: str) -> str:
    """The same, but the engine need not import the model's libraries: for what does not depend on how an engine starts."""
    return f"{shlex.join(warm.app(*args))}; echo status=$?="
