"""`mav run` without the app: the session in this process, each token written as it comes."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from openmav.breakpoints import Hit
from openmav.errors import MavError, UsageError
from openmav.logs import redirect, say, screen
from openmav.record import EndReason, ModelInfo, Prompt, Step
from openmav.settings import Settings
from openmav.signals import Interrupted, check, finish, hold

if TYPE_CHECKING:
    from openmav.session import Session


class Face(Protocol):
    """A way to write a run."""

    def begin(self, info: ModelInfo, prompt: Prompt, settings: Settings) -> None: ...

    def step(self, step: Step) -> None: ...

    def end(self, reason: EndReason, steps: list[Step], seconds: float, hit: Hit | None = None) -> None: ...

    def fail(self) -> None:
        """An error ends the run; its line comes next on the screen."""


class ReaderGoneError(Exception):
    """Nobody reads stdout any more."""


def stream(settings: Settings, face: Literal["plain", "json"]) -> int:
    """Generate and write until the end, a signal, or until nobody reads; the exit code.

    Raises MavError where the model cannot be loaded or the output cannot be written.
    """
    out = Output(sys.stdout)
    redirect(descriptors=True)
    try:
        return _generate(settings, _make_face(face, out))
    except ReaderGoneError:
        return 0


def _make_face(face: Literal["plain", "json"], out: Output) -> Face:
    if face == "json":
        from openmav.apps.jsonl import JsonLines

        return JsonLines(out.write)
    from openmav.apps.plain import Plain

    return Plain(out.write, say, terminal=out.terminal)


def _generate(settings: Settings, face: Face) -> int:
    steps: list[Step] = []
    hit: Hit | None = None
    progress = ProgressLine()
    started = time.perf_counter()
    try:
        from openmav.opening import open_session

        session = open_session(settings, progress)
        check()
        try:
            started = time.perf_counter()
            face.begin(session.info, session.prompt, settings)
            session.prefill(progress)
            progress.clear()
            for step in _steps(session, settings):
                with hold():  # what is written is counted
                    face.step(step)
                    steps.append(step)
                check()
                _wait(started + len(steps) * settings.refresh_rate)
            hit = session.hit
            reason, exit_code = session.reason or ("break" if hit is not None else "length"), 0
        finally:
            progress.clear()
            session.close()
    except Interrupted as interrupt:
        reason, exit_code = "interrupt", interrupt.exit_code
    except ReaderGoneError:
        raise
    except Exception:
        face.fail()
        raise
    finish()
    face.end(reason, steps, time.perf_counter() - started, hit)
    return exit_code


def _steps(session: Session, settings: Settings) -> Iterator[Step]:
    """All of them as they come; where each need not stay for a while, a few at a time."""
    if settings.refresh_rate > 0:
        yield from session
    while session.reason is None and session.hit is None:
        yield from session.burst()


def _wait(until: float) -> None:
    left = until - time.perf_counter()
    if left > 0:
        time.sleep(left)


class Output:
    """stdout, as UTF-8 with plain newlines; what is written is never torn by a signal."""

    def __init__(self, out: TextIO | None) -> None:
        if out is None:
            raise UsageError("stdout is closed; there is nowhere to write to")
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
        self._out = out
        self.terminal = out.isatty()

    def write(self, text: str) -> None:
        """Write and flush. Raises ReaderGoneError where the other end is closed, MavError where writing fails."""
        with hold():
            try:
                self._out.write(text)
                self._out.flush()
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


class ProgressLine:
    """What is going on while a model loads: one line on a terminal's stderr that goes away again; nothing elsewhere."""

    def __init__(self) -> None:
        stream = screen()
        self._shown = False
        self._terminal = stream is not None and stream.isatty()

    def __call__(self, what: str, fraction: float | None = None) -> None:
        if self._terminal:
            share = "" if fraction is None else f" {fraction:.0%}"
            say(f"\r\x1b[2K{what}{share}", end="")
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            say("\r\x1b[2K", end="")
            self._shown = False
