"""What the engine reports to its app: the run's state as it changes, steps, and branches that were left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from openmav.engine.events import BranchLeft, BranchRenamed, Event, Made, Recomputed, StateChanged, first_state
from openmav.engine.inbox import AppGoneError
from openmav.protocol.snapshot import RunState, Status
from openmav.record import Step, without_large
from openmav.settings import Settings

if TYPE_CHECKING:
    from openmav.generation.session import Session
    from openmav.record.attribution_result import InputAttribution
    from openmav.record.sampling_preview import SamplingPreview
    from openmav.record.sweep_map import SweepMap

MOST_SWEEPS = 100  # earlier sweeps of a run that are kept


class Reporter:
    """`state` is what the app knows of the run. Every method raises AppGoneError once the app is gone."""

    def __init__(self, pipe: Connection, settings: Settings) -> None:
        self._pipe = pipe
        self.state = first_state(settings)
        self.obeyed = 0  # the number of the last command that was taken
        self.reread = False  # tokens had to be recomputed since this was reset, and the app knows
        self._broken = 0  # measures that have failed, as far as the app knows

    def send(self, event: Event) -> None:
        try:
            self._pipe.send(event)
        except (OSError, ValueError) as error:
            raise AppGoneError from error

    def change(self, state: RunState, length: int | None = None) -> None:
        """Other facts than before; `length` as in StateChanged."""
        before, self.state = self.state, state
        self.send(StateChanged(state.changes(before), length, self.obeyed))

    def loading(self, what: str, fraction: float | None) -> None:
        self.change(replace(self.state, status="loading", resumes=False, progress=what, fraction=fraction))

    def reading(self, what: str, fraction: float | None) -> None:
        """Tokens are read, the prompt's or recomputed ones of the text; a run goes on after it."""
        self.reread = True
        self.change(replace(self.state, status="prefill", resumes=self.state.running, progress=what, fraction=fraction))

    def loaded(self, session: Session) -> None:
        """The model is there, or another prompt, or a measure that does not work: the notes on the model say so."""
        self._broken = len(session.broken)
        self.change(replace(session.describe(self.state), info=session.info, progress="reading the prompt"))

    def broken(self, session: Session) -> None:
        """A user's own measure that has failed is missing from now on, and the app's panels say why."""
        if len(session.broken) != self._broken:
            self.loaded(session)

    def run(self, session: Session, *, running: bool, notice: str = "") -> None:
        """Where the run is. `notice` answers a command; without one, the breakpoint at the newest token is named while nothing runs."""
        going = running and session.reason is None
        notices = self.state.notices + bool(notice)
        notice = notice or (str(session.hit) if session.hit is not None and not going else "")
        status: Status = "ended" if session.reason is not None else "running" if going else "paused"
        state = replace(session.describe(self.state), status=status, notice=notice, notices=notices, resumes=False, progress="")
        self.change(state, len(session.steps))

    def attributed(self, attribution: InputAttribution) -> None:
        self.change(replace(self.state, attribution=attribution))

    def previewed(self, preview: SamplingPreview | None) -> None:
        self.change(replace(self.state, preview=preview))

    def swept(self, sweep: SweepMap) -> None:
        """As far as a sweep has come; nothing runs meanwhile. The one before it stays, too."""
        last, before = self.state.sweep, self.state.sweeps
        if last is not None and last.number != sweep.number:
            before = (*before, last)[-MOST_SWEEPS:]
        self.change(replace(self.state, sweep=sweep, sweeps=before, status="paused", resumes=False))

    def paced(self, seconds: float) -> None:
        self.change(replace(self.state, pace=seconds))

    def made(self, steps: Sequence[Step]) -> None:
        if steps:
            self.send(Made(tuple(steps)))

    def redone(self, steps: Sequence[Step]) -> None:
        """Steps that the app has forgotten; nothing large is kept of them here."""
        self.made([without_large(step) for step in steps])

    def recomputing(self, index: int | None) -> None:
        self.change(replace(self.state, recomputing=index))

    def recomputed(self, step: Step) -> None:
        self.send(Recomputed(step))

    def left(self, session: Session, name: str, shared: int) -> None:
        """Branch `name` was left; its first `shared` steps are those of the text that the app has."""
        branch = session.branches[name]
        self.send(BranchLeft(replace(branch, steps=tuple(map(without_large, branch.steps[shared:]))), shared))

    def renamed(self, old: str, new: str) -> None:
        """The branch, and the sweeps that are of its tokens."""
        self.send(BranchRenamed(old, new))
        last, before = self.state.sweep, self.state.sweeps
        if any(one.branch == old for one in (*before, *([] if last is None else [last]))):
            before = tuple(replace(one, branch=new) if one.branch == old else one for one in before)
            last = replace(last, branch=new) if last is not None and last.branch == old else last
            self.change(replace(self.state, sweep=last, sweeps=before))
