"""What each command does to the session and to the engine; a MavError is the line that answers it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from openmav.errors import NoGradientError, UsageError
from openmav.protocol.commands import (
    Advance,
    Attribute,
    Back,
    Command,
    EditPrompt,
    Force,
    Forward,
    Intervene,
    Pause,
    PreviewSampling,
    Rename,
    Resume,
    Retrace,
    SetBreakpoints,
    SetPace,
    SetSampling,
    SweepSites,
    Switch,
    Type,
    Want,
)
from openmav.settings.sites import SWEPT_NAMES

if TYPE_CHECKING:
    from openmav.engine.worker import Engine
    from openmav.generation.retrace import Retrace as Way
    from openmav.generation.session import Session
    from openmav.record import Step


EVERY = 0.1  # seconds between two reports of a sweep


def handle(engine: Engine, session: Session, command: Command) -> str:
    """Do it, and return a line about it, "" for none. Raises MavError where that can't be done."""
    return HANDLERS[type(command)](engine, session, command) or ""


def _go_on(session: Session) -> str:
    """A text that has ended goes on."""
    reason = session.reason
    more = session.go_on()
    return "" if more is None else f"going on after the end ({reason}): {more} more token{'s' if more != 1 else ''} at most"


def resume(engine: Engine, session: Session, _command: Resume) -> str:
    said = _go_on(session)
    engine.running, engine.budget = True, None
    return said


def pause(engine: Engine, _session: Session, _command: Pause) -> None:
    engine.running = False


def advance(engine: Engine, session: Session, command: Advance) -> str:
    said = _go_on(session)
    left = engine.budget or 0 if engine.running else 0
    engine.running, engine.budget, engine.due = True, left + max(1, command.count), 0.0
    return said


def back(engine: Engine, session: Session, command: Back) -> None:
    engine.running = False
    session.back(command.count)


def forward(engine: Engine, session: Session, command: Forward) -> None:
    engine.running = False
    engine.reporter.redone(session.forward(command.count))


def force(engine: Engine, session: Session, command: Force) -> None:
    engine.running = engine.running and command.at is None
    with _at(session, command):
        session.go_on()
        engine.show_made(session, lambda: [session.force(command.token_id)])


def type_words(engine: Engine, session: Session, command: Type) -> None:
    engine.running = False
    with _at(session, command), contextlib.suppress(StopIteration):
        words = session.type(command.text, past_end=True)
        while True:
            engine.show_made(session, lambda: [next(words)])


def switch(engine: Engine, session: Session, command: Switch) -> None:
    engine.running = False
    with _leaving(engine, session):
        session.switch(command.branch)


def rename(engine: Engine, session: Session, command: Rename) -> None:
    session.rename(command.branch, command.name)
    engine.reporter.renamed(command.branch, command.name)


def edit_prompt(engine: Engine, session: Session, command: EditPrompt) -> None:
    with _leaving(engine, session):
        session.edit_prompt(command.text)


def intervene(engine: Engine, session: Session, command: Intervene) -> None:
    again = session.intervene(command.specs)
    if again is not None:
        engine.reporter.made((again,))


def want(engine: Engine, session: Session, command: Want) -> None:
    """While nothing runs, what the newest step's forward pass was not captured for is computed once more."""
    session.want(sorted(command.measures), command.layer, command.candidates)
    engine.backfill.want(command)
    engine.backfill.newest(session, idle=engine.idle(session))
    engine.inbox.receive()
    if command.at is not None and not engine.inbox.holds(Want):  # else the user has moved on
        engine.reporter.recomputing(command.at)
        try:
            engine.backfill.look_back(session, command.at, True)
        finally:
            engine.reporter.recomputing(None)


def set_breakpoints(engine: Engine, session: Session, command: SetBreakpoints) -> None:
    session.break_at(command.texts)
    engine.backfill.newest(session, idle=engine.idle(session))


def set_sampling(_engine: Engine, session: Session, command: SetSampling) -> None:
    session.sampling = command.sampling


def preview_sampling(engine: Engine, session: Session, command: PreviewSampling) -> None:
    engine.reporter.previewed(session.preview_sampling(command.sampling))


def set_pace(engine: Engine, _session: Session, command: SetPace) -> None:
    engine.reporter.paced(command.seconds)
    engine.due = min(engine.due, time.monotonic() + command.seconds)


def attribute(engine: Engine, session: Session, command: Attribute) -> str:
    """By occlusion where the model has no gradient. Stopped by any other command but Want; that one is obeyed then."""
    engine.running = False
    _need_branch(session, command.branch)
    reading, session.progress = session.progress, partial(_attributing, engine)
    place, why = (command.index, command.token_id, command.minus), ""
    try:
        try:
            result = session.explain(command.method, *place)
        except NoGradientError as error:
            result, why = session.explain("occlusion", *place), str(error)
        engine.reporter.attributed(result)
    finally:
        session.progress = reading
    return why


def _attributing(engine: Engine, what: str, fraction: float | None) -> None:
    """Raises UsageError where another command came meanwhile."""
    engine.reporter.reading(what, fraction)
    engine.inbox.receive()
    if engine.inbox.holds(Want, other=True):
        raise UsageError("input attribution was stopped")


def sweep_sites(engine: Engine, session: Session, command: SweepSites) -> str:
    """Stopped by any other command but Want; that one is obeyed then."""
    engine.running = False
    _need_branch(session, command.branch)
    now, reported = None, 0.0
    last = engine.reporter.state.sweep
    number = 1 if last is None else last.number + 1
    for now in session.sweep_sites(command.index, command.what, command.how):
        engine.inbox.receive()
        stopped = engine.inbox.holds(Want, other=True) and now.under_way
        if stopped or not now.under_way or time.monotonic() - reported > EVERY:
            engine.reporter.swept(replace(now, stopped=stopped, branch=session.branch, number=number))
            reported = time.monotonic()
        if stopped:
            return f"the sweep was stopped after {now.done} of {now.total} {SWEPT_NAMES[now.what]}"
    return f"the sweep is done: {now.total} {SWEPT_NAMES[now.what]}" if now is not None else ""


def retrace(engine: Engine, session: Session, command: Retrace) -> str:
    """Stopped by any other command but Want; that one is obeyed then, and what was made stays."""
    engine.running = False
    way = session.retrace()
    for branch in command.branches:
        with _leaving(engine, session):
            way.begin(branch)
        engine.report(session)
        if not way.same_prompt(branch):
            return f"the prompt of branch '{branch.name}' has other tokens now, so that its text was not made again"
        for step in branch.steps[len(session.steps) :]:
            _obey_wants(engine, session)
            if engine.inbox.waiting:
                return f"stopped after token {len(session.steps)} of branch '{branch.name}'"
            engine.show_made(session, partial(_made_again, way, step))
            again = session.steps[-1]
            if again.token_id != step.token_id:
                return f"token {step.index} is {again.token!r} now, and was {step.token!r}: the text goes another way from here"
        if session.branch != branch.name:
            engine.reporter.renamed(session.branch, branch.name)
            session.rename(session.branch, branch.name)
        way.end(branch)
    with _leaving(engine, session):
        way.go_to(command.current)
    return ""


def _made_again(way: Way, step: Step) -> list[Step]:
    return [way.make(step)]


def _obey_wants(engine: Engine, session: Session) -> None:
    """So that the steps have what the app shows."""
    engine.inbox.receive()
    while engine.inbox.waiting and isinstance(engine.inbox.waiting[0][1], Want):
        engine.reporter.obeyed, command = engine.inbox.take()
        handle(engine, session, command)


@contextlib.contextmanager
def _at(session: Session, command: Force | Type) -> Iterator[None]:
    """The text undone to the place that the command is meant for; redone where nothing was put there.

    Raises UsageError where that place is not in the text (any more).
    """
    _need_branch(session, command.branch)
    before = len(session.steps)
    at = before if command.at is None else command.at
    if not 0 <= at <= before:
        raise UsageError(f"the text has {before} tokens by now, so that nothing was put at token {at}")
    session.back(before - at)
    try:
        yield
    except BaseException:
        if len(session.steps) == at:
            session.forward(before - at)
        raise


@contextlib.contextmanager
def _leaving(engine: Engine, session: Session) -> Iterator[None]:
    """Reports another branch that the text is on afterwards, also where interventions could not follow it there."""
    old, before, prompt = session.branch, session.steps, session.prompt
    try:
        yield
    finally:
        if session.branch != old:
            engine.reporter.left(session, old, len(before))
            if session.prompt is not prompt:
                engine.reporter.loaded(session)
            shared = next((i for i, (a, b) in enumerate(zip(before, session.steps)) if a is not b), min(len(before), len(session.steps)))
            engine.reporter.redone(session.steps[shared:])


def _need_branch(session: Session, name: str | None) -> None:
    """Raises UsageError where the text is on another branch than the user saw."""
    if name is not None and name != session.branch:
        raise UsageError(f"the text is on branch '{session.branch}' by now, not on '{name}'; nothing was done")


HANDLERS: dict[type, Callable[[Engine, Session, Any], str | None]] = {
    Resume: resume,
    Pause: pause,
    Advance: advance,
    Back: back,
    Forward: forward,
    Force: force,
    Type: type_words,
    Switch: switch,
    Rename: rename,
    EditPrompt: edit_prompt,
    Intervene: intervene,
    Want: want,
    SetBreakpoints: set_breakpoints,
    SetSampling: set_sampling,
    PreviewSampling: preview_sampling,
    SetPace: set_pace,
    Attribute: attribute,
    SweepSites: sweep_sites,
    Retrace: retrace,
}
