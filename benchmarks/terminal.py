"""The real command in a pseudo terminal, its output read with the time at which it came. POSIX only: `AVAILABLE` says so."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from common import ROOT

if sys.platform != "win32":
    import fcntl
    import pty
    import select
    import struct
    import termios

AVAILABLE = sys.platform != "win32"
UNAVAILABLE = "Not measured: it needs a pseudo terminal, and this system has none that Python can open."
COLUMNS, ROWS = 160, 45
PATIENCE = 120.0  # seconds until a screen that does not come is an error
OVERLAP = 512  # bytes that are looked at again with the next ones, since a read may cut a word or a sequence
FAILED = "✖"  # how the app marks an error
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\)|[ -/]*[0-~])", re.DOTALL)


def mav() -> list[str]:
    """The command as it is installed beside this Python."""
    script = Path(sys.executable).with_name("mav")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "openmav"]


class Terminal:
    """A command that runs in a terminal of 160x45, from `with` to the end of the block."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self._recent = ""  # the newest output as text
        self._tail = b""

    def __enter__(self) -> Terminal:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            self.command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, cwd=ROOT
        )
        os.close(theirs)
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self.type("q")
        try:
            self._drain_until_end(5.0)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            os.close(self._ours)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def seconds_until(self, pattern: str) -> float:
        """Seconds from the start of the command until what it writes, without escape sequences, matches.

        Raises RuntimeError where it fails, ends or takes too long before that.
        """
        wanted = re.compile(pattern)
        while time.perf_counter() - self.began < PATIENCE:
            if wanted.search(self._recent):
                return self._came - self.began
            if FAILED in self._recent or (not self._read(0.5) and self.process.poll() is not None):
                break
        raise RuntimeError(f"{' '.join(self.command)} did not show {pattern}; it wrote: ...{self._recent[-400:]}")

    def watch(self, seconds: float) -> None:
        """Takes what is written for so long."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if not self._read(left) and self.process.poll() is not None:
                time.sleep(max(0.0, until - time.perf_counter()))

    def _read(self, wait: float) -> bool:
        """Takes what has come within `wait` seconds; False where nothing has, or where the other end is closed."""
        if not select.select([self._ours], [], [], wait)[0]:
            return False
        try:
            new = os.read(self._ours, 1 << 16)
        except OSError:  # Linux says so when the last writer is gone
            return False
        self._came = time.perf_counter()
        joined = self._tail + new
        self._recent = ESCAPE.sub("", joined.decode("utf-8", errors="replace"))
        self._tail = joined[-OVERLAP:]
        return bool(new)

    def _drain_until_end(self, patience: float) -> None:
        """A command that is blocked on a full terminal would never end."""
        until = time.perf_counter() + patience
        while self.process.poll() is None and time.perf_counter() < until:
            self._read(0.05)
