"""Breakpoints stop the generation itself: before the model runs again, once, and nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe

import numpy as np
import pytest

from openmav.apps.text.jsonl import JsonLines
from openmav.apps.text.plain import Plain
from openmav.backends.toy import Toy
from openmav.conditions.breakpoints import Breakpoints, Hit
from openmav.engine.events import Event, Made, StateChanged, first_state
from openmav.engine.inbox import AppGoneError
from openmav.engine.worker import Engine
from openmav.errors import UsageError
from openmav.generation.session import Session
from openmav.protocol.commands import Advance, Back, Command, Resume, SetBreakpoints, Want
from openmav.protocol.snapshot import RunState
from openmav.settings import CORE_MEASURES, Settings


class Counted(Toy):
    """The toy, and how often it was run."""

    passes = 0

    def prefill(self, *args, **kwargs):
        self.passes += 1
        return super().prefill(*args, **kwargs)

    def decode_one_token(self, *args, **kwargs):
        self.passes += 1
        return super().decode_one_token(*args, **kwargs)


def session_of(*breakpoints: str, **settings) -> Session:
    asked = {"max_new_tokens": 20, "breakpoints": breakpoints, **settings}
    return Session(Counted("toy", {}), Settings(model="toy", prompt="Hi", backend="toy", **asked))


def test_iterating_stops_before_the_next_forward_pass_and_goes_on_when_begun_again() -> None:
    session = session_of("index == 3 or index == 6")
    assert [step.index for step in session] == [0, 1, 2, 3]
    assert session.backend.passes == 4  # one for each token that was made
    assert (session.hit, session.reason) == (Hit("index == 3 or index == 6", 3, "3"), None)
    assert [step.index for step in session] == [4, 5, 6]
    assert session.backend.passes == 7
    assert [step.index for step in session] == list(range(7, 20))
    assert session.hit is None
    plain = session_of()
    assert [step.token_id for step in plain] == [step.token_id for step in session.steps]


def test_what_a_breakpoint_needs_is_computed_though_nobody_wants_it() -> None:
    session = session_of("lens[0] != lens[-1] and max(sink) >= 0", measures=())
    step = session.step()
    assert {"logit_lens", "sink_share"} <= step.values.keys()
    assert "mlp_norm" not in step.values
    session.want(["mlp_norm"])
    assert {"logit_lens", "sink_share", "mlp_norm"} <= session.step().values.keys()
    session.break_at([])
    step = session.step()
    assert "mlp_norm" in step.values
    assert "logit_lens" not in step.values


def test_a_value_that_was_measured_decides() -> None:
    norms = [float(step.values["mlp_norm"][1]) for step in session_of()]
    limit = float(np.sort(norms)[-2])
    session = session_of(f"norm(mlp, 1) > {limit!r}", measures=())
    list(session)
    assert session.hit is not None
    assert session.hit.index == int(np.argmax(norms))


def test_a_wrong_one_leaves_those_that_are_set() -> None:
    session = session_of("index == 3")
    for wrong in ("entropy", "norm(mlp, 99) > 1", "index ="):
        with pytest.raises(UsageError):
            session.break_at([wrong])
        assert session.breakpoints.texts == ("index == 3",)
    with pytest.raises(UsageError, match="no such layer: it has 0 to"):
        session_of("norm(mlp, 99) > 1")


def test_taking_back_forgets_that_one_held() -> None:
    session = session_of("index == 3")
    list(session)
    session.back(1)
    assert session.hit is None
    assert [step.index for step in session] == [3]  # made again, it holds again
    assert session.hit is not None


def test_the_same_text_twice_is_one_breakpoint() -> None:
    assert Breakpoints(("nan", "nan", "index == 1")).texts == ("nan", "index == 1")


# ---- the engine ----------------------------------------------------------------------------------


class Told:
    """What the app knows: the run's state, and how many tokens there are."""

    def __init__(self, state: RunState, length: int) -> None:
        self.length, self.status, self.running = length, state.status, state.running
        self.notice, self.reason, self.breakpoints = state.notice, state.reason, state.breakpoints


class Running:
    """An engine that serves in a thread: `send` a command, `until` a state that answers one."""

    def __init__(self, session: Session) -> None:
        self.session, self.made, self.sent = session, [], 0
        self.state = first_state(session.settings)
        self.pipe, theirs = Pipe()
        engine = Engine(theirs, session.settings)
        self.thread = threading.Thread(target=self._serve, args=(engine,), daemon=True)
        self.thread.start()

    def _serve(self, engine: Engine) -> None:
        with pytest.raises(AppGoneError):
            engine.serve()

    def send(self, command: Command) -> None:
        self.sent += 1
        self.pipe.send((self.sent, command))

    def until(self, good: Callable[[Told], bool]) -> Told:
        while self.pipe.poll(20):
            event: Event = self.pipe.recv()
            if isinstance(event, Made):
                self.made.extend(step.index for step in event.steps)
            elif isinstance(event, StateChanged):
                self.state = replace(self.state, **event.changes)
                if event.length is not None and good(told := Told(self.state, event.length)):
                    return told
        raise AssertionError("nothing came of it")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*breakpoints: str, **settings) -> Running:
        session = session_of(*breakpoints, **settings)
        monkeypatch.setattr("openmav.generation.opening.open_session", lambda *_: session)
        running.append(Running(session))
        return running[-1]

    yield begin
    for one in running:
        one.pipe.close()
        one.thread.join(60)
        assert not one.thread.is_alive()


def paused(state: Told) -> bool:
    return not state.running


def test_the_engine_pauses_before_the_next_forward_pass_and_says_why(start) -> None:
    engine = start("index == 3")
    state = engine.until(paused)
    assert (state.notice, state.length, state.breakpoints) == ("breakpoint index == 3: 3 at token 3", 4, ("index == 3",))
    assert engine.session.backend.passes == 4
    engine.send(Want(frozenset(CORE_MEASURES)))  # what the app asks for meanwhile does not take the word away
    assert engine.until(paused).notice == "breakpoint index == 3: 3 at token 3"
    assert engine.session.backend.passes == 4


def test_run_goes_past_it_and_the_same_step_does_not_stop_it_again(start) -> None:
    engine = start("index >= 3 and index <= 4")
    assert engine.until(paused).length == 4
    engine.send(Resume())
    assert engine.until(lambda s: not s.running and s.length > 4).length == 5
    engine.send(Resume())
    end = engine.until(lambda s: s.reason is not None)
    assert (end.reason, end.notice) == ("length", "")
    assert engine.made == list(range(20))


def test_single_steps_are_told_and_not_held_up(start) -> None:
    engine = start("index == 1", interactive=True)
    engine.until(paused)
    for length, notice in ((1, ""), (2, "breakpoint index == 1: 1 at token 1"), (3, "")):
        engine.send(Advance())
        assert engine.until(lambda s, n=length: not s.running and s.length == n).notice == notice
    engine.send(Back(2))
    assert engine.until(lambda s: s.length == 1).notice == ""
    engine.send(Advance(3))
    assert engine.until(lambda s: not s.running and s.length == 4).notice == ""


def test_a_breakpoint_that_is_set_while_it_runs_holds_from_the_next_token_on(start) -> None:
    engine = start(interactive=True, max_new_tokens=5000, refresh_rate=0.02)
    engine.until(paused)
    engine.send(Resume())
    engine.until(lambda s: s.running)
    engine.send(SetBreakpoints(("index >= 0",)))
    told = engine.until(lambda s: bool(s.breakpoints))
    stopped = engine.until(paused)
    assert stopped.length - told.length == 1
    engine.send(SetBreakpoints(()))
    assert engine.until(lambda s: not s.breakpoints).notice.startswith("breakpoint")  # it did stop there
    engine.send(SetBreakpoints(("index >",)))
    refused = engine.until(lambda s: "cannot read" in s.notice)
    assert refused.breakpoints == ()


def test_what_a_new_breakpoint_needs_is_there_at_once(start) -> None:
    engine = start(interactive=True, measures=())
    engine.send(Advance())
    engine.until(lambda s: s.length == 1 and not s.running)
    engine.send(SetBreakpoints(("norm(mlp, 1) > 1e9",)))
    engine.until(lambda s: bool(s.breakpoints))
    assert engine.made == [0, 0]  # told again, with the norm
    assert "mlp_norm" in engine.session.steps[0].values


# ---- without an app ------------------------------------------------------------------------------


def lines_of(session: Session) -> list[dict]:
    written: list[str] = []
    face = JsonLines(written.append)
    face.begin(session.info, session.prompt, session.settings)
    for step in session:
        face.step(step)
    face.end(session.reason or "break", session.steps, 1.0, session.hit)
    return [json.loads(line) for line in written]


def test_json_lines_name_it_as_the_schema_says() -> None:
    from unit.test_jsonl import check_line

    head, *steps, end = lines_of(session_of("index == 3"))
    for line in (head, *steps, end):
        check_line(line)
    assert head["breakpoints"] == ["index == 3"]
    assert end == {"type": "end", "reason": "break", "tokens": 4, "seconds": 1.0, "breakpoint": "index == 3", "measured": "3"}


def test_a_breakpoint_at_the_last_token_is_named_beside_the_reason() -> None:
    *_, end = lines_of(session_of("index == 19"))
    assert (end["reason"], end["breakpoint"]) == ("length", "index == 19")


def test_plain_text_says_it_in_its_last_line() -> None:
    said: list[str] = []
    session = session_of("index == 3")
    steps = list(session)
    Plain(lambda _: None, said.append, terminal=False).end("break", steps, 1.0, session.hit)
    assert said[0].endswith("· breakpoint index == 3: 3 at token 3")


def test_each_rank_is_the_number_of_larger_logits() -> None:
    session = session_of(candidates=1)
    for at in range(6):
        step = session.force(at * 7 + 3) if at % 2 else session.step()
        frame, _ = session._maker.newest
        assert step.rank == int((frame.logits.numpy() > frame.logits.numpy()[step.token_id]).sum())
    assert any(step.rank > 0 for step in session.steps)
