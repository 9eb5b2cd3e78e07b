"""What commands write to stdout and stderr: nothing in it has power over a terminal, and what cannot be written is one line."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from openmav.errors import MavError, UsageError
from openmav.system.logs import say, screen, stdout
from openmav.system.signals import hold
from openmav.system.terminal import ERASE_LINE, neutral


class ReaderGoneError(Exception):
    """Nobody reads stdout any more."""


class Output:
    """stdout, as UTF-8 with plain newlines; what is written is never torn by a signal.

    `write` passes text on as it is: for a model's own words in a pipe, and for data. Everything else goes through `echo`.
    """

    def __init__(self, out: TextIO | None) -> None:
        if out is None:
            raise UsageError("stdout is closed; there is nowhere to write to")
        self._out = out
        self.terminal = out.isatty()
        with self._failing_in_one_line():
            if isinstance(out, io.TextIOWrapper):
                out.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # which flushes what others have written

    def write(self, text: str) -> None:
        """Write and flush. Raises ReaderGoneError where the other end is closed, MavError where writing fails."""
        with hold(), self._failing_in_one_line():
            self._out.write(text)
            self._out.flush()

    def flush(self) -> None:
        """Whatever others have written to stdout; raises as `write` does."""
        self.write("")

    @contextmanager
    def _failing_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._give_up()
            if isinstance(error, BrokenPipeError) or os.name == "nt":  # Windows says "invalid argument"
                raise ReaderGoneError from error
            raise MavError(f"cannot write to stdout: {error.strerror}") from error

    def _give_up(self) -> None:
        """Let what is still buffered go nowhere, so that the interpreter's last flush does not fail."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._out.fileno())
        os.close(nowhere)


def echo(text: str = "") -> None:
    """A line on stdout; control and escape characters in it, whoever wrote them, become visible symbols."""
    Output(stdout()).write(neutral(text) + "\n")


class ProgressLine:
    """What is going on while a model loads: one line on a terminal's stderr that goes away again; nothing elsewhere."""

    def __init__(self) -> None:
        stream = screen()
        self._shown = False
        self._terminal = stream is not None and stream.isatty()

    def __call__(self, what: str, fraction: float | None = None) -> None:
        if self._terminal:
            share = "" if fraction is None else f" {fraction:.0%}"
            say(f"{what}{share}", end="", start=ERASE_LINE)
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            say("", end="", start=ERASE_LINE)
            self._shown = False
