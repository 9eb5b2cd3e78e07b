"""A session in a process of its own, and the client that an app sees as a Source.

The process is started by spawn and talks through one pipe: commands in, events out. The client's thread drains the pipe into
a History, so that an app never waits for the model and the model never waits for an app. When either side dies the other
notices at once: the client shows a clear line, the engine ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypeAlias

from openmav.errors import MavError
from openmav.record import EndReason, ModelInfo, Prompt, Step, without_large
from openmav.sampling import Sampling
from openmav.settings import Settings
from openmav.source import Advance, Back, Command, Force, History, Pause, Run, SetSampling, Snapshot, Want

if TYPE_CHECKING:
    from openmav.session import Session

COMMANDS = frozenset({"Run", "Pause", "Advance", "Back", "Force", "Want", "SetSampling"})


# ---- events: what the engine tells ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Working:
    """Loading, or reading the prompt."""

    what: str
    share: float | None
    reading: bool


@dataclass(frozen=True)
class Ready:
    info: ModelInfo
    prompt: Prompt


@dataclass(frozen=True)
class Made:
    step: Step


@dataclass(frozen=True)
class State:
    """Running, paused or ended, with this many tokens; `notice` answers a command that could not be done."""

    running: bool
    length: int
    reason: EndReason | None
    sampling: Sampling
    notice: str = ""


@dataclass(frozen=True)
class Failed:
    line: str
    exit_code: int
    details: str = ""  # a traceback, for the log


Event: TypeAlias = Working | Ready | Made | State | Failed


# ---- the engine's side ---------------------------------------------------------------------------------------------------


class _AppGoneError(Exception):
    """The app has gone."""


class Engine:
    """Obeys commands between tokens. `rate`: seconds that each token stays at least while running."""

    def __init__(self, pipe: Connection, settings: Settings) -> None:
        self.pipe = pipe
        self.settings = settings
        self.running = not settings.interactive
        self.budget: int | None = None  # tokens to make before pausing; None: no limit
        self.due = 0.0

    def tell(self, event: Event) -> None:
        try:
            self.pipe.send(event)
        except (OSError, ValueError) as error:
            raise _AppGoneError from error

    def serve(self) -> None:
        """Load, read the prompt, then generate as told, until the app goes."""
        session = self._open()
        if session is None:
            return
        self._tell_state(session)
        while True:
            self._obey(session)
            if not self.running or session.reason is not None:
                continue
            self.due = time.monotonic() + self.settings.refresh_rate
            self._generate(session)

    def _open(self) -> Session | None:
        from openmav.session import open_session

        session = open_session(self.settings, lambda what, share: self.tell(Working(what, share, False)))
        self.tell(Ready(session.info, session.prompt))
        session.prefill(lambda what, share: self.tell(Working(what, share, True)))
        return session

    def _generate(self, session: Session) -> None:
        self.tell(Made(session.step()))
        self._lighten(session)
        if self.budget is not None:
            self.budget -= 1
            self.running = self.budget > 0
        if not self.running or session.reason is not None:
            self._tell_state(session)

    def _lighten(self, session: Session) -> None:
        """The app has the steps: of what is large, this process keeps the newest step's only."""
        if len(session.steps) > 1:
            session.steps[-2] = without_large(session.steps[-2])

    def _tell_state(self, session: Session, notice: str = "") -> None:
        going = self.running and session.reason is None
        self.tell(State(going, len(session.steps), session.reason, session.sampling, notice))

    def _obey(self, session: Session) -> None:
        """Take all commands that have come; wait for one while paused or ended, and for the next token's time while running."""
        while True:
            idle = not self.running or session.reason is not None
            wait = None if idle else max(0.0, self.due - time.monotonic())
            try:
                if not self.pipe.poll(wait):
                    return
                command = self.pipe.recv()
            except (EOFError, OSError) as error:
                raise _AppGoneError from error
            try:
                self._do(session, command)
                self._tell_state(session)
            except MavError as error:
                self._tell_state(session, str(error))

    def _do(self, session: Session, command: Command) -> None:
        if isinstance(command, Run):
            self.running, self.budget = True, None
        elif isinstance(command, Pause):
            self.running = False
        elif isinstance(command, Advance):
            under_way = self.budget or 0 if self.running else 0
            self.running, self.budget, self.due = True, under_way + max(1, command.count), 0.0
        elif isinstance(command, Back):
            self.running = False
            session.back(command.count)
        elif isinstance(command, Force):
            self.tell(Made(session.force(command.token_id)))
            self._lighten(session)
        elif isinstance(command, Want):
            session.want(sorted(command.measures), command.layer)
            again = session.look_again()
            if again is not None:
                self.tell(Made(again))
        elif isinstance(command, SetSampling):
            session.sampling = command.sampling


def _process(pipe: Connection, settings: Settings, log: str | None) -> None:
    """The engine process: Ctrl-C is the app's business, output of libraries goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect_output(log)
    engine = Engine(pipe, settings)
    with contextlib.suppress(_AppGoneError):
        try:
            engine.serve()
        except MavError as error:
            engine.tell(Failed(str(error), error.exit_code))
        except _AppGoneError:
            raise
        except BaseException as error:
            engine.tell(_failure(error))


def _failure(error: BaseException) -> Failed:
    import traceback

    details = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return Failed("out of memory; try --dtype bfloat16, a shorter prompt, or a smaller model", 2, details)
    return Failed(f"the model's process failed: {type(error).__name__}: {error}".splitlines()[0], 1, details)


def _redirect_output(log: str | None) -> None:
    """Nothing that a library prints may reach the terminal; file descriptors, since C code prints as well."""
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)


# ---- the app's side ------------------------------------------------------------------------------------------------------


class EngineSource:
    """A Source whose session runs in a process of its own, which starts at once. Satisfies openmav.source.Source."""

    can = COMMANDS

    def __init__(self, settings: Settings, log: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._lock = threading.Lock()
        self._closing = False
        self.exit_code = 0
        self.details = ""  # the traceback of a failure, for the log
        self._history = History(Snapshot(progress="starting", sampling=settings.sampling))
        self._process = context.Process(target=_process, args=(theirs, settings, log), daemon=True, name="mav engine")
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._drain, daemon=True, name="mav engine reader")
        self._reader.start()

    def snapshot(self) -> Snapshot:
        return self._history.snapshot()

    def send(self, command: Command) -> None:
        """Ask for something; a command to an engine that is gone is dropped, its end is in the snapshot already."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._pipe.send(command)

    @property
    def pid(self) -> int | None:
        """Of the engine's process."""
        return self._process.pid

    def close(self) -> None:
        """End the process, whatever it is doing; returns within a second."""
        self._closing = True
        self._process.terminate()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(0.5)
        self._reader.join(0.5)
        self._pipe.close()

    def _drain(self) -> None:
        while True:
            try:
                self._take(self._pipe.recv())
            except (EOFError, OSError):
                break
        if not self._closing and self.snapshot().status != "failed":
            self._process.join(1)
            self.exit_code = 1
            how = f"exit code {self._process.exitcode}"
            self._history.update(status="failed", error=f"the model's process ended unexpectedly ({how}); was it killed, or out of memory?")

    def _take(self, event: Event) -> None:
        history = self._history
        if isinstance(event, Made):
            history.append(event.step)
        elif isinstance(event, State):
            status = "ended" if event.reason else "running" if event.running else "paused"
            history.truncate(event.length)
            history.update(status=status, progress="", reason=event.reason, sampling=event.sampling, notice=event.notice)
        elif isinstance(event, Working):
            history.update(status="prefill" if event.reading else "loading", progress=event.what, fraction=event.share)
        elif isinstance(event, Ready):
            history.update(info=event.info, prompt=event.prompt, progress="reading the prompt")
        else:
            self.exit_code, self.details = event.exit_code, event.details
            history.update(status="failed", error=event.line)
