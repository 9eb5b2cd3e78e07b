"""The engine: a session that generates and obeys commands between tokens."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from openmav.engine import faults
from openmav.engine.backfill import Backfill
from openmav.engine.handlers import handle
from openmav.engine.imports_ahead import import_ahead
from openmav.engine.inbox import AppGoneError, Inbox
from openmav.engine.reporter import Reporter
from openmav.errors import MavError, is_panic
from openmav.record import Step, without_large
from openmav.settings import Settings
from openmav.system.memory import out_of_memory

if TYPE_CHECKING:
    from openmav.generation.session import Session


class Engine:
    """Obeys commands between tokens. `budget` tokens are generated before it pauses; None: no limit."""

    def __init__(self, pipe: Connection, settings: Settings, name_measure: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self._name_measure = name_measure
        self.inbox = Inbox(pipe)
        self.reporter = Reporter(pipe, settings)
        self.backfill = Backfill(self.reporter)
        self.running = not settings.interactive
        self.budget: int | None = None
        self.due = 0.0  # when the next token may come

    def serve(self) -> None:
        """Load, read the prompt, then generate as commanded, until the app goes: then AppGoneError."""
        session = self._open()
        self.report(session)
        while True:
            self.obey(session)
            if not self.idle(session):
                self.due = time.monotonic() + self.reporter.state.pace
                self.generate_or_pause(session)

    def idle(self, session: Session) -> bool:
        """Nothing is generated before another command."""
        return not self.running or session.reason is not None

    def report(self, session: Session, notice: str = "") -> None:
        self.reporter.run(session, running=self.running, notice=notice)

    def obey(self, session: Session) -> None:
        """Take all commands that have come; wait for one while idle, and for the next token's time while running."""
        while True:
            idle = self.idle(session)
            while idle and not self.inbox.poll(0.0) and self._fill(session):
                pass
            if session.steps and (idle or self.reporter.state.pace > 0):
                import_ahead()
            if not self.inbox.poll(None if idle else max(0.0, self.due - time.monotonic())):
                return
            self.reporter.obeyed, command = self.inbox.take()
            self.backfill.restart()
            self.report(session, self._answer(handle, self, session, command))

    def generate_or_pause(self, session: Session) -> None:
        """The next tokens; where there is no memory for them, the run is paused and the text stays."""
        try:
            self._generate(session)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
            notice = f"out of memory at token {len(session.steps)}: paused; {faults.LESS}"
        self.running = False
        faults.free_memory()
        self.report(session, notice)

    def show_made(self, session: Session, make: Callable[[], Sequence[Step]]) -> int:
        """Makes steps and reports them, and the branch that they left, where they did not go on as before; how many."""
        branch, self.reporter.reread = session.branch, False
        made = make()
        self.reporter.broken(session)
        if session.branch != branch:
            self.reporter.left(session, branch, made[0].index)
        self.reporter.made(made)
        if session.branch != branch or self.reporter.reread:
            self.report(session)
        last = len(session.steps) - 1
        for at in range(max(0, last - len(made)), last):  # the app has the steps: of what is large, the newest one's stays here
            session.steps[at] = without_large(session.steps[at])
        return len(made)

    def _open(self) -> Session:
        from openmav.generation.opening import open_session

        if self.settings.threads is not None:  # this process is mav's own: measures keep to them as well
            os.environ["OMP_NUM_THREADS"] = str(self.settings.threads)  # for torch, where it is imported from now on
            if torch := sys.modules.get("torch"):
                torch.set_num_threads(self.settings.threads)
        session = open_session(self.settings, self.reporter.loading)
        session.progress = self.reporter.reading
        session.name_measure(self._name_measure)
        self.reporter.loaded(session)
        session.prefill(session.progress)
        return session

    def _generate(self, session: Session) -> None:
        """The next token, or as many as no eye can tell apart where each need not stay for a while."""
        if self.reporter.state.pace > 0:
            made = self.show_made(session, lambda: [session.step()])
        else:
            made = self.show_made(session, lambda: session.burst(most=self.budget))
        if self.budget is not None:
            self.budget -= made
            self.running = self.budget > 0
        elif session.hit is not None:
            self.running = False
        if self.idle(session):
            self.report(session)

    def _answer(self, do: Callable[..., str | None], *arguments: object) -> str:
        """Does it, and returns its line, or one that says why it could not be done; the run goes on then."""
        try:
            return do(*arguments) or ""
        except MavError as error:
            return str(error)
        except AppGoneError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            traceback.print_exc()  # for the log
            answer = faults.answer(error)
        faults.free_memory()
        return answer

    def _fill(self, session: Session) -> bool:
        """One more step with what is wanted; False where there is none, or where that failed."""
        filled = False

        def fill() -> None:
            nonlocal filled
            filled = self.backfill.next(session)

        answer = self._answer(fill)
        if answer:  # as in a measure of a plug-in
            self.backfill.give_up()
            self.report(session, answer)
        return filled and not answer
