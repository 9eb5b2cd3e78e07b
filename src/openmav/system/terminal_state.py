"""The state of a terminal before an app used it, so that another process can restore it if the app can't."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEAVE = (
    "\x1b[?2026l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l"  # output, pastes, mouse, focus
    "\x1b[<u\x1b[0m\x1b[H\x1b[J\x1b[?1049l\x1b[?25h\x1b[?7h"  # keys, colours, the screen, the cursor, wrapped lines
)
PATIENCE = 10.0  # seconds that a terminal that takes no output may hold up the end of the process


@dataclass(frozen=True)
class TerminalState:
    """The device, and its line discipline where there is one."""

    device: str
    attributes: list[Any] | None

    @staticmethod
    def now() -> TerminalState | None:
        """The state of the terminal at stdin; None where there is none."""
        try:
            if sys.__stdin__ is None or not sys.__stdin__.isatty():
                return None
            if os.name == "nt":
                return TerminalState("CONOUT$", None)
            import termios

            descriptor = sys.__stdin__.fileno()
            return TerminalState(os.ttyname(descriptor), termios.tcgetattr(descriptor))
        except (OSError, ValueError, ImportError):
            return None

    def is_ours(self) -> bool:
        """Whether this process may read and write there: not in the background, and not where the terminal is gone."""
        if os.name == "nt":
            return True
        try:
            descriptor = os.open(self.device, os.O_RDWR | os.O_NOCTTY)
            try:
                return os.tcgetpgrp(descriptor) == os.getpgrp()
            finally:
                os.close(descriptor)
        except OSError:
            return False

    @contextmanager
    def keys(self) -> Iterator[Callable[[float], bytes]]:
        """A function that gives what is typed within so many seconds, b"" for nothing; whoever else reads the terminal gets none of it."""
        if os.name == "nt":
            yield _console_keys
            return
        import select

        descriptor = os.open(self.device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)

        def read(seconds: float) -> bytes:
            try:
                return os.read(descriptor, 4096) if select.select([descriptor], [], [], seconds)[0] else b""
            except OSError:
                return b""

        try:
            yield read
        finally:
            os.close(descriptor)

    def say_below(self, line: str) -> None:
        """Writes a line over the lowest row, whatever stands there."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = os.open(self.device, os.O_RDWR | getattr(os, "O_NOCTTY", 0))
            try:
                os.write(descriptor, f"\x1b[?2026l\x1b7\x1b[999;1H\x1b[0;7m{line}\x1b[0m\x1b8".encode())
            finally:
                os.close(descriptor)

    def put_back(self) -> None:
        """The line discipline as it was, where an app has left another: one that was stopped while it took the terminal may have."""
        if self.attributes is None:
            return
        import termios

        with contextlib.suppress(OSError, termios.error):
            descriptor = os.open(self.device, os.O_RDWR | os.O_NOCTTY)
            try:
                if termios.tcgetattr(descriptor) != self.attributes and not _in_background(descriptor):
                    _set_attributes(descriptor, self.attributes)
            finally:
                os.close(descriptor)

    def restore(self, message: str = "") -> None:
        """Restore it, from any process or thread; waits no longer than PATIENCE for its output to go, and not where it is closed."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = os.open(self.device, os.O_RDWR | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if self.attributes is not None:
                    _set_attributes(descriptor, self.attributes)
                _write(descriptor, LEAVE + (f"{message}\r\n" if message else ""))
            finally:
                os.close(descriptor)


def _in_background(descriptor: int) -> bool:
    """Whether the terminal is a shell's at the moment, which may not be changed under it."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # it is no session's of this process
        return False


def _console_keys(seconds: float) -> bytes:
    """What was typed into a Windows console within so many seconds."""
    import msvcrt

    result = b""
    end = time.monotonic() + seconds
    while not result and time.monotonic() < end:
        while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
            result += msvcrt.getwch().encode("utf-8", "replace")  # type: ignore[attr-defined,unused-ignore]
        time.sleep(0.02)
    return result


def _write(descriptor: int, text: str) -> None:
    """As far as the terminal takes it in time; `descriptor` does not block."""
    data = text.encode()
    if os.name == "nt":
        os.write(descriptor, data)
        return
    import select

    end = time.monotonic() + PATIENCE
    while data and select.select([], [descriptor], [], max(0.0, end - time.monotonic()))[1]:
        data = data[os.write(descriptor, data) :]


def _set_attributes(descriptor: int, attributes: list[Any]) -> None:
    import termios

    with contextlib.suppress(ValueError):  # not the main thread; then the caller is not a background process
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
