"""The engine's side: a session that obeys commands between tokens."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from openmav.engine.events import Again, Event, Explained, Failed, Kept, Made, Ready, Renamed, State, Working
from openmav.errors import MavError, UsageError
from openmav.record import Branch, Step, large, without_large
from openmav.settings import Settings
from openmav.source import (
    BUDGET,
    Advance,
    Attribute,
    Back,
    Command,
    EditPrompt,
    Force,
    Forward,
    Intervene,
    Pause,
    Rename,
    Run,
    SetBreakpoints,
    SetSampling,
    Switch,
    Type,
    Want,
)

if TYPE_CHECKING:
    from openmav.session import Session


ROOM = BUDGET // 2  # bytes of large entries of steps that nobody looks at; an app keeps BUDGET of them
FILL = 256  # steps before and after the reader's that are looked at again while nothing runs


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
        self.obeyed = 0  # commands that were taken
        self._waiting: deque[Command] = deque()  # that came while something took long
        self._read_again = False  # a token took longer than usual, and the app was told why
        self._wanted = Want(frozenset())  # the last one
        self._room = ROOM
        self._seen: set[int] = set()  # steps that were looked at again for it, or need not be

    def tell(self, event: Event) -> None:
        try:
            self.pipe.send(event)
        except (OSError, ValueError) as error:
            raise _AppGoneError from error

    def serve(self) -> None:
        """Load, read the prompt, then generate as told, until the app goes."""
        session = self._open()
        self._tell_state(session)
        while True:
            self._obey(session)
            if not self.running or session.reason is not None:
                continue
            self.due = time.monotonic() + self.settings.refresh_rate
            self._generate(session)

    def _open(self) -> Session:
        from openmav.opening import open_session

        session = open_session(self.settings, lambda what, share: self.tell(Working(what, share, False)))
        session.progress = self._reading
        self.tell(Ready(session.info, session.prompt))
        session.prefill(session.progress)
        return session

    def _reading(self, what: str, share: float | None) -> None:
        self._read_again = True
        self.tell(Working(what, share, True))

    def _generate(self, session: Session) -> None:
        """The next token, or as many as no eye can tell apart where each need not stay for a while."""
        if self.settings.refresh_rate > 0:
            made = self._show_made(session, lambda: [session.step()])
        else:
            made = self._show_made(session, lambda: session.burst(most=self.budget))
        if self.budget is not None:
            self.budget -= made
            self.running = self.budget > 0
        elif session.hit is not None:
            self.running = False
        if not self.running or session.reason is not None:
            self._tell_state(session)

    def _show_made(self, session: Session, make: Callable[[], Sequence[Step]]) -> int:
        """Makes steps and tells of them, and of the branch that they left, where they did not go on as before; how many."""
        branch, self._read_again = session.branch, False
        made = make()
        if session.branch != branch:
            self._tell_kept(session, branch, made[0].index)
        self.tell(Made(tuple(made)))
        if session.branch != branch or self._read_again:
            self._tell_state(session)
        first = max(0, len(session.steps) - len(made) - 1)
        for at in range(
            first, len(session.steps) - 1
        ):  # the app has the steps: of what is large, this process keeps the newest step's only
            session.steps[at] = without_large(session.steps[at])
        return len(made)

    def _tell_kept(self, session: Session, name: str, shared: int) -> None:
        branch = session.branches[name]
        self.tell(Kept(replace(branch, steps=tuple(map(without_large, branch.steps[shared:]))), shared))

    def _tell_state(self, session: Session, notice: str = "") -> None:
        """`notice` answers a command; without one, a breakpoint that holds at the newest token is named while nothing runs."""
        going, now = self.running and session.reason is None, session.branches[session.branch]
        length = len(session.steps)
        place = (now.name, now.parent, now.at, session.ahead, session.interventions, session.breakpoints.texts)
        notice = notice or (str(session.hit) if session.hit is not None and not going else "")
        self.tell(State(going, length, session.reason, session.sampling, self.obeyed, notice, *place))

    def _obey(self, session: Session) -> None:
        """Take all commands that have come; wait for one while paused or ended, and for the next token's time while running."""
        while True:
            idle = not self.running or session.reason is not None
            wait = None if idle else max(0.0, self.due - time.monotonic())
            while idle and not self._waiting and not self._asked(0.0) and self._fill(session):
                pass
            if not self._waiting and not self._asked(wait):
                return
            command = self._waiting.popleft() if self._waiting else self._next()
            self.obeyed += 1
            self._seen.clear()
            try:
                _DO[type(command)](self, session, command)
                self._tell_state(session)
            except MavError as error:
                self._tell_state(session, str(error))

    def _asked(self, wait: float | None) -> bool:
        """Whether a command comes within so many seconds; None: wait until one does."""
        try:
            return self.pipe.poll(wait)
        except (EOFError, OSError) as error:
            raise _AppGoneError from error

    def _next(self) -> Command:
        try:
            command: Command = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _AppGoneError from error
        return command

    # ---- what each command does ----

    def _run(self, _session: Session, _command: Run) -> None:
        self.running, self.budget = True, None

    def _pause(self, _session: Session, _command: Pause) -> None:
        self.running = False

    def _advance(self, _session: Session, command: Advance) -> None:
        under_way = self.budget or 0 if self.running else 0
        self.running, self.budget, self.due = True, under_way + max(1, command.count), 0.0

    def _back(self, session: Session, command: Back) -> None:
        self.running = False
        session.back(command.count)

    def _forward(self, session: Session, command: Forward) -> None:
        self.running = False
        self._tell_again(session.forward(command.count))

    def _force(self, session: Session, command: Force) -> None:
        self._show_made(session, lambda: [session.force(command.token_id)])

    def _type(self, session: Session, command: Type) -> None:
        self.running = False
        words = session.type(command.text)
        with contextlib.suppress(StopIteration):
            while True:
                self._show_made(session, lambda: [next(words)])

    def _switch(self, session: Session, command: Switch) -> None:
        self.running = False
        old, before = session.branch, session.steps
        session.switch(command.branch)
        if session.branch != old:
            self._tell_kept(session, old, len(before))
            self._tell_prompt(session, session.branches[old])
            shared = next((i for i, (a, b) in enumerate(zip(before, session.steps)) if a is not b), min(len(before), len(session.steps)))
            self._tell_again(session.steps[shared:])

    def _rename(self, session: Session, command: Rename) -> None:
        session.rename(command.branch, command.name)
        self.tell(Renamed(command.branch, command.name))

    def _edit_prompt(self, session: Session, command: EditPrompt) -> None:
        old, before = session.branch, len(session.steps)
        session.edit_prompt(command.text)
        self._tell_kept(session, old, before)
        self._tell_prompt(session, session.branches[old])

    def _tell_prompt(self, session: Session, left: Branch) -> None:
        if session.prompt is not left.prompt:
            self.tell(Ready(session.info, session.prompt))

    def _tell_again(self, steps: list[Step]) -> None:
        if steps:
            self.tell(Made(tuple(map(without_large, steps))))

    def _intervene(self, session: Session, command: Intervene) -> None:
        again = session.intervene(command.specs)
        if again is not None:
            self.tell(Made((again,)))

    def _want(self, session: Session, command: Want) -> None:
        """While nothing runs, what the newest step's forward pass was not captured for is computed once more."""
        session.want(sorted(command.measures), command.layer)
        self._wanted, self._room = command, ROOM
        self._look_again(session)
        while self._asked(0.0):
            self._waiting.append(self._next())
        if command.at is not None and not any(isinstance(one, Want) for one in self._waiting):  # else the reader has moved on
            self._look_back(session, command.at, True)

    def _fill(self, session: Session) -> bool:
        """Looks at one more step that lacks what is wanted, the nearest to the reader's; False where none does, or there is no room."""
        if self._room <= 0:
            return False
        last = len(session.steps) - 1
        around = last if self._wanted.at is None else min(self._wanted.at, last)
        nearest = sorted(range(max(0, around - FILL), min(last, around + FILL) + 1), key=lambda index: abs(index - around))
        try:
            return any(self._look_back(session, index, False) for index in nearest if index not in self._seen)
        except MavError as error:  # as in a measure of somebody's own
            self._room = 0
            self._tell_state(session, str(error))
            return False

    def _look_back(self, session: Session, index: int, dropped: bool) -> bool:
        """Tells of a step that was looked at again. This process keeps nothing large of it, as of all but the newest."""
        self._seen.add(index)
        again = session.look_back(index, dropped) if index < len(session.steps) else None
        if again is None:
            return False
        self.tell(Again(again))
        self._room -= sum(large(again).values())
        if index < len(session.steps) - 1:
            session.steps[index] = without_large(again)
        return True

    def _set_breakpoints(self, session: Session, command: SetBreakpoints) -> None:
        session.break_at(command.texts)
        self._look_again(session)

    def _look_again(self, session: Session) -> None:
        idle = not self.running or session.reason is not None
        again = session.look_again()
        if idle and session.lacks():
            again = session.retake() or again
        if again is not None:
            self.tell(Made((again,)))

    def _attribute(self, session: Session, command: Attribute) -> None:
        """Stopped by any other command but Want; that one is obeyed then."""
        self.running = False
        reading, session.progress = session.progress, self._working
        try:
            self.tell(Explained(session.explain(command.method, command.index, command.token_id, command.minus)))
        finally:
            session.progress = reading

    def _working(self, what: str, share: float | None) -> None:
        """Raises UsageError where the app asked for something else meanwhile."""
        self.tell(Working(what, share, True))
        while self._asked(0.0):
            self._waiting.append(self._next())
        if any(not isinstance(command, Want) for command in self._waiting):
            raise UsageError("input attribution was stopped")

    def _set_sampling(self, session: Session, command: SetSampling) -> None:
        session.sampling = command.sampling


_DO: dict[type, Callable[[Engine, Session, Any], None]] = {
    Run: Engine._run,
    Pause: Engine._pause,
    Advance: Engine._advance,
    Back: Engine._back,
    Forward: Engine._forward,
    Force: Engine._force,
    Type: Engine._type,
    Switch: Engine._switch,
    Rename: Engine._rename,
    EditPrompt: Engine._edit_prompt,
    Intervene: Engine._intervene,
    SetBreakpoints: Engine._set_breakpoints,
    Want: Engine._want,
    SetSampling: Engine._set_sampling,
    Attribute: Engine._attribute,
}


def serve(pipe: Connection, settings: Settings, log: str | None) -> None:
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
