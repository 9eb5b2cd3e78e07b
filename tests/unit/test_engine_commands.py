"""What the engine makes of commands, one after another in this process: what repeats, can't be done, or has no memory."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Iterator

import pytest
import torch
from engines import raising

from openmav.engine import EngineSource
from openmav.engine.app_watch import AppState, SlowMeasure
from openmav.engine.events import first_state
from openmav.engine.queue import CommandQueue, Numbered, append
from openmav.engine.worker import Engine
from openmav.errors import NoGradientError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.protocol.commands import (
    Advance,
    Attribute,
    Back,
    Command,
    EditPrompt,
    Force,
    Intervene,
    Pause,
    PreviewSampling,
    Rename,
    Resume,
    SetSampling,
    SweepSites,
    Type,
    Want,
)
from openmav.protocol.history import History
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings
from openmav.settings.sampling import Sampling

pytestmark = pytest.mark.slow


@pytest.fixture
def engine(monkeypatch) -> Iterator[tuple[Engine, Session, EngineSource]]:
    """An engine and its session in this process, and the client's side of its pipe without threads."""
    ours, theirs = multiprocessing.Pipe()
    settings = Settings(model="toy?endless=1", backend="toy", prompt="abc", interactive=True, measures=("mlp_norm",))
    session = open_session(settings)
    source = EngineSource.__new__(EngineSource)
    source._history, source._lock, source._sampling_sent, source._state = History(), threading.Lock(), 0, first_state(settings)
    source._shared = AppState()
    source._slow = SlowMeasure(source._shared)
    source._pipe = ours
    made = Engine(theirs, settings)
    yield made, session, source
    session.close()


def obey(engine: tuple[Engine, Session, EngineSource], *commands: Command) -> Snapshot:
    """The state after these commands, and after the tokens that they ask for."""
    made, session, _ = engine
    for number, command in enumerate(commands, made.reporter.obeyed + 1):
        append(made.inbox.waiting, number, command)
    poll = type(made.inbox).poll.__get__(made.inbox)
    made.inbox.poll = lambda wait: poll(0.0 if wait is None else wait)  # it never waits for more
    for _ in range(50):
        made.obey(session)
        if made.idle(session):
            break
        made.generate_or_pause(session)
    return told(engine)


def told(engine: tuple[Engine, Session, EngineSource]) -> Snapshot:
    """What the client knows once it has read all that was sent."""
    source = engine[2]
    while source._pipe.poll(0):
        source._take(source._pipe.recv())
    return source.snapshot()


def test_a_run_that_reads_tokens_again_counts_as_running(engine) -> None:
    made, session, _ = engine
    for running, status in ((True, "running"), (False, "paused")):
        made.running = running
        made.report(session)
        assert told(engine).status == status
        for _ in range(2):
            made.reporter.reading("recomputing 500 tokens", 0.5)
            now = told(engine)
            assert (now.status, now.running) == ("prefill", running)


@pytest.mark.parametrize(
    "command", [Force(5, 9), Type("x", 9), Force(5, 1, "elsewhere"), Type("x", 1, "elsewhere"), Force(10**9, 1), Type("", 1)]
)
def test_what_cannot_be_put_there_leaves_the_text_as_it_was(engine, command) -> None:
    before = obey(engine, Advance(4))
    assert (len(before.steps), before.notice) == (4, "")
    after = obey(engine, command)
    assert after.notice
    assert [step.token_id for step in after.steps] == [step.token_id for step in before.steps]
    assert (after.branch, after.undone) == ("main", 0)


def test_the_same_words_for_another_command_are_news(engine) -> None:
    first, second = (obey(engine, Force(10**9, 1)) for _ in range(2))
    assert first.notice == second.notice != ""
    assert second.notices == first.notices + 1
    assert obey(engine, Advance(1)).notices == second.notices


def test_a_model_without_a_gradient_is_attributed_by_occlusion(engine, monkeypatch) -> None:
    _, session, _ = engine
    explain = session.backend.explain
    obey(engine, Advance(3))

    def without(method: str, *rest: object) -> object:
        if method != "occlusion":
            raise NoGradientError("this model has no gradient")
        return explain(method, *rest)

    monkeypatch.setattr(session.backend, "explain", without)
    now = obey(engine, Attribute("integrated", 1))
    assert (now.attribution.method, now.notice) == ("occlusion", "this model has no gradient")
    assert now.attribution.scores.any()


ATTRIBUTE, LENS = Attribute("gradient", 1), Want(frozenset({"logit_lens"}))
OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", [ATTRIBUTE, Intervene(("ablate L1.mlp",)), Type("xyz"), Force(5, 1), LENS])
def test_a_command_without_memory_is_answered_and_the_run_goes_on(engine, monkeypatch, error, command) -> None:
    obey(engine, Advance(3))
    backend = engine[1].backend
    before = [step.token_id for step in engine[1].steps]
    with monkeypatch.context() as broken:
        for name in ("prefill", "decode_one_token", "aside", "intervened", "explain"):
            if hasattr(backend, name):
                broken.setattr(backend, name, raising(error))
        now = obey(engine, command)
    assert now.notice.startswith("out of memory")
    assert "\n" not in now.notice
    assert (now.status, [step.token_id for step in now.steps]) == ("paused", before)
    obey(engine, Intervene())
    goes_on = obey(engine, Advance(2))
    alone = open_session(engine[0].settings)
    assert [(step.token_id, step.logprob) for step in goes_on.steps] == [
        (step.token_id, step.logprob) for step in (alone.step() for _ in range(5))
    ]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_run_without_memory_for_a_token_is_paused(engine, monkeypatch, error) -> None:
    obey(engine, Advance(3))
    with monkeypatch.context() as broken:
        broken.setattr(engine[1].backend, "decode_one_token", raising(error))
        now = obey(engine, Resume())
    assert (now.status, len(now.steps)) == ("paused", 3)
    assert now.notice.startswith("out of memory at token 3: paused")
    assert len(obey(engine, Advance(2)).steps) == 5


def test_a_library_that_panics_fails_one_command(engine, monkeypatch) -> None:
    obey(engine, Advance(3))
    panic = type("PanicException", (BaseException,), {})
    with monkeypatch.context() as broken:
        broken.setattr(engine[1].backend, "encode", raising(panic("index out of range\nsecond line")))
        assert obey(engine, Type("xyz")).notice == "that could not be done: PanicException: index out of range second line"
        assert obey(engine, EditPrompt("xyz")).status == "paused"
    assert len(obey(engine, Type("xyz")).steps) == 6


def test_commands_that_repeat_become_one_and_the_rest_keep_their_order() -> None:
    queue = CommandQueue(most=4)
    flood = [Advance(), Advance(2), Back(1), Back(3), Resume(), Pause(), Resume(), Intervene(("a",)), Intervene(())]
    for number, command in enumerate(flood, 1):
        assert queue.put(number, command)
    for number in range(10, 20_000):
        assert not queue.put(number, Type("x")), "a full queue takes no more"
        assert not queue.put(number, Force(1, 2))
        assert queue.put(number, Intervene((str(number),))), "what takes the place of the last one"
    assert [queue.take() for _ in range(4)] == [(2, Advance(3)), (4, Back(4)), (7, Resume()), (19_999, Intervene(("19999",)))]
    queue.close()
    assert queue.take() is None


def test_of_several_wants_the_last_counts() -> None:
    waiting: deque[Numbered] = deque()
    for number, command in enumerate([Want(frozenset({"a"})), Advance(), Want(frozenset({"b"})), Advance(), Want(frozenset({"c"}))], 1):
        append(waiting, number, command)
    assert list(waiting) == [(4, Advance(2)), (5, Want(frozenset({"c"})))]


def test_of_several_previews_the_last_counts_and_the_settings_between_them_too() -> None:
    waiting: deque[Numbered] = deque()
    for number in range(1, 1001):
        sampling = Sampling(temperature=number / 100)
        append(waiting, 2 * number, SetSampling(sampling))
        append(waiting, 2 * number + 1, PreviewSampling(sampling))
    assert list(waiting) == [(2000, SetSampling(sampling)), (2001, PreviewSampling(sampling))]


def test_a_sweep_fills_its_map_and_another_command_stops_it(engine) -> None:
    before = obey(engine, Advance(3))
    done = obey(engine, SweepSites(1, "main"))
    assert done.sweep is not None
    assert (done.sweep.done, done.sweep.stopped, done.sweep.index) == (done.sweep.total, False, 1)
    assert "the sweep is done" in done.notice
    stopped = obey(engine, SweepSites(2, "main"), Pause())
    assert stopped.sweep is not None
    assert stopped.sweep.stopped
    assert stopped.sweep.done < stopped.sweep.total
    assert [(one.number, one.branch, one.index, one.done) for one in stopped.sweeps] == [(1, "main", 1, done.sweep.total)]
    assert (stopped.sweep.number, stopped.sweep.branch) == (2, "main")
    assert [a.token_id for a in stopped.steps] == [b.token_id for b in before.steps]
    assert "no token 9" in obey(engine, SweepSites(9, "main")).notice
    assert "nothing was done" in obey(engine, SweepSites(1, "elsewhere")).notice
    renamed = obey(engine, Rename("main", "first words"))
    assert [one.branch for one in (*renamed.sweeps, renamed.sweep)] == ["first words", "first words"]
    assert len(obey(engine, Advance(1)).steps) == 4


def test_a_preview_of_sampling_leaves_the_run_as_it_is(engine) -> None:
    before = obey(engine, Advance(3))
    hot = Sampling(temperature=1.5)
    now = obey(engine, PreviewSampling(hot))
    assert (now.status, now.sampling, len(now.steps)) == ("paused", before.sampling, 3)
    assert now.preview is not None
    assert (now.preview.sampling, now.preview.index) == (hot, 2)
    assert [now.preview.stages[at] for at in (0, -1)] == ["raw", "top-k"]
