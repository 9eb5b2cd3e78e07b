"""Chat templates rendered in a fork of the process that asks, in place of a new process that would import transformers each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from openmav.backends.shared import chat_rendering

SECONDS = 1  # of a processor in place of chat_rendering's, so that a template without end is given up sooner


class Forks:
    """Stands where `chat_rendering` has the module subprocess: its task, its limits and its answer are the same."""

    TimeoutExpired = subprocess.TimeoutExpired

    @staticmethod
    def run(command: list[str], *, input: bytes, timeout: float, cwd: object, **_: Any) -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryFile() as task, tempfile.TemporaryFile() as answer:
            task.write(input)
            task.seek(0)
            pid = os.fork()
            if pid == 0:
                _render(task.fileno(), answer.fileno(), str(cwd))
            code = _end_of(pid, time.monotonic() + timeout)
            if code is None:
                raise subprocess.TimeoutExpired(command, timeout)
            answer.seek(0)
            return subprocess.CompletedProcess(command, code, answer.read(), b"")


def install() -> None:
    """For the rest of this process."""
    chat_rendering.subprocess, chat_rendering.SECONDS = Forks, SECONDS  # type: ignore[assignment,misc]


def _end_of(pid: int, end: float) -> int | None:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def _render(task: int, answer: int, folder: str) -> None:
    """In the fork; never returns."""
    try:
        os.chdir(folder)
        sys.stdin, sys.stderr = open(task, encoding="utf-8"), open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        with open(answer, "w", encoding="utf-8", closefd=False) as sys.stdout:
            chat_rendering._main()
    finally:
        os._exit(0)
