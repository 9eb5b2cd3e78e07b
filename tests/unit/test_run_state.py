"""Facts about a run: each is a field of RunState, and nothing between the engine and a panel lists them again."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest

from fakes import make_attribution, make_info, make_prompt, make_steps
from openmav.engine.app_watch import AppState, SlowMeasure
from openmav.engine.client import EngineSource
from openmav.engine.events import StateChanged, first_state
from openmav.engine.reporter import Reporter
from openmav.protocol.history import History
from openmav.protocol.snapshot import RunState
from openmav.settings import Settings
from openmav.settings.sampling import Sampling
from openmav.view import View

SETTINGS = Settings()


@pytest.fixture
def sides() -> Iterator[tuple[Reporter, EngineSource]]:
    """What the engine reports with, and a client at the other end of the pipe without threads."""
    ours, theirs = multiprocessing.Pipe()
    source = EngineSource.__new__(EngineSource)
    source._history, source._lock, source._sampling_sent, source._state = History(), threading.Lock(), 0, first_state(SETTINGS)
    source._shared = AppState()
    source._slow = SlowMeasure(source._shared)
    source._pipe = ours
    yield Reporter(theirs, SETTINGS), source
    ours.close()
    theirs.close()


def take_all(source: EngineSource) -> list[object]:
    events = []
    while source._pipe.poll(0):
        events.append(source._pipe.recv())
        source._take(events[-1])
    return events


def test_every_fact_goes_from_the_engine_to_a_view(sides) -> None:
    """A mark in the place of each fact: a hand-kept list of facts on the way that lacks a new one would lose its mark."""
    reporter, source = sides
    marked = RunState(**{one.name: f"mark {one.name}" for one in fields(RunState)} | {"info": make_info()})
    reporter.change(marked, 0)
    take_all(source)
    view = View().updated(source.snapshot())
    assert view.facts() == source.snapshot().facts() == marked.facts()
    assert len(view.facts()) >= 17


def test_only_what_changed_is_sent(sides) -> None:
    reporter, source = sides
    prompt, steps = make_prompt(), make_steps(3)
    state = replace(reporter.state, info=make_info(), prompt=prompt, attribution=make_attribution(prompt, steps, 2))
    reporter.change(state, 0)
    reporter.change(replace(state, info=make_info(), undone=2), 0)
    reporter.change(replace(state, info=make_info(), undone=2, attribution=make_attribution(prompt, steps, 2)), 0)
    first, second, third = take_all(source)
    assert isinstance(first, StateChanged)
    assert set(first.changes) == {"info", "prompt", "attribution"}
    assert (second.changes, set(third.changes)) == ({"undone": 2}, {"attribution"})
    assert source.snapshot().undone == 2


def test_what_the_client_said_itself_stays_until_the_engine_has_answered(sides) -> None:
    reporter, source = sides
    source._sampling_sent = 4
    source._history.update(sampling=Sampling(temperature=0.8), notice="the model is busy")
    reporter.obeyed = 3
    reporter.reading("reading", 0.5)
    take_all(source)
    assert (source.snapshot().sampling.temperature, source.snapshot().notice) == (0.8, "the model is busy")
    reporter.obeyed = 4
    reporter.change(replace(reporter.state, status="paused"), 0)
    take_all(source)
    assert (source.snapshot().sampling.temperature, source.snapshot().notice) == (0.0, "")
