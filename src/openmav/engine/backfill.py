"""Steps computed once more for what the app wants now: the newest one, the user's, and those around it while nothing runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openmav.engine.reporter import Reporter
from openmav.protocol.commands import Want
from openmav.protocol.history import BUDGET
from openmav.record import large, without_large

if TYPE_CHECKING:
    from openmav.generation.session import Session

ROOM = BUDGET // 2  # bytes of large entries of steps that the user has not selected; an app keeps BUDGET of them
REACH = 256  # steps before and after the user's that are recomputed while nothing runs


class Backfill:
    """Recomputes steps and reports them, as long as the app has room for what is large in them."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._wanted = Want(frozenset())  # the last one
        self._room = ROOM
        self._seen: set[int] = set()  # steps that were recomputed for it, or need not be

    def want(self, wanted: Want) -> None:
        self._wanted, self._room = wanted, ROOM

    def restart(self) -> None:
        """A command came: steps may lack something again."""
        self._seen.clear()

    def give_up(self) -> None:
        """No more steps until something else is wanted."""
        self._room = 0

    def newest(self, session: Session, *, idle: bool) -> None:
        """The newest step with what is wanted; what its forward pass was not captured for is computed only where the run is idle."""
        again = session.look_again()
        if idle and session.lacks():
            again = session.retake() or again
        self._reporter.broken(session)
        if again is not None:
            self._reporter.made((again,))

    def next(self, session: Session) -> bool:
        """The nearest step to the user's that lacks what is wanted; False where none does, or there is no room."""
        if self._room <= 0:
            return False
        last = len(session.steps) - 1
        around = last if self._wanted.at is None else min(self._wanted.at, last)
        nearest = sorted(range(max(0, around - REACH), min(last, around + REACH) + 1), key=lambda index: abs(index - around))
        return any(self.look_back(session, index, False) for index in nearest if index not in self._seen)

    def look_back(self, session: Session, index: int, dropped: bool) -> bool:
        """Whether a step was recomputed, and reported. This process keeps nothing large of it, as of all but the newest."""
        self._seen.add(index)
        again = session.look_back(index, dropped) if index < len(session.steps) else None
        if again is None:
            return False
        self._reporter.recomputed(again)
        self._room -= sum(large(again).values())
        if index < len(session.steps) - 1:
            session.steps[index] = without_large(again)
        return True
