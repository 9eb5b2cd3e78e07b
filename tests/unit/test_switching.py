"""Another model in place of the one that is shown: the old one stays until the new one is there, and where it can't be loaded."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from fakes import ScriptedSource, make_info, make_prompt, make_steps
from openmav.apps.switching import SwitchingSource
from openmav.errors import UsageError
from openmav.protocol.commands import Advance, SetBreakpoints, SetPace, Want
from openmav.protocol.snapshot import Snapshot
from openmav.recording.source import RecordingSource
from openmav.settings import Settings
from openmav.view import View

INFO = make_info(6, 4)


class FakeEngine(ScriptedSource):
    """An engine that loads for as long as a test wants it to."""

    def __init__(self, settings: Settings) -> None:
        super().__init__((), make_info(3, 2, name=settings.model))
        self.settings, self.exit_code, self.details, self.pid = settings, 0, "", 1000 + len(settings.model)
        self.gone = threading.Event()
        self.history.update(status="loading", info=None, prompt=None, progress="reading the weights")

    def arrive(self) -> None:
        self.history.update(status="paused", info=self.info, prompt=make_prompt(self.settings.prompt or "x"), progress="")

    def latest(self) -> Snapshot:
        return self.snapshot()

    def observe(self, _changed: object) -> Snapshot:
        return self.snapshot()

    def name_panel(self, name: str) -> None: ...

    def close(self) -> None:
        self.gone.set()


class Switching:
    """A SwitchingSource and its engines, the first of them loaded and two tokens on."""

    def __init__(self, **settings: object) -> None:
        self.engines: list[FakeEngine] = []
        self.source = SwitchingSource(Settings(model="first", prompt="Hello", **settings), self._start)  # type: ignore[arg-type]
        self.engines[0].arrive()
        self.engines[0].history.extend(make_steps(2, self.engines[0].info))

    def _start(self, settings: Settings):  # type: ignore[no-untyped-def]
        self.engines.append(FakeEngine(settings))
        return self.engines[-1]


def test_the_next_model_takes_the_place_of_the_first_once_it_is_there() -> None:
    both = Switching(interventions=("ablate L0",))
    source, (first,) = both.source, both.engines
    for command in (Want(frozenset({"mlp_norm"}), at=3), SetPace(0.5), SetBreakpoints(("nan",))):
        source.send(command)
    before = source.snapshot()
    assert source.load_model("second") == "loading second"
    second = both.engines[1]
    loading = source.snapshot()
    assert (loading.info, loading.steps, loading.status) == (before.info, before.steps, before.status)
    assert loading.notice == "loading second: reading the weights; the model that is shown stays until then"
    assert loading.version > before.version
    assert (second.settings.model, second.settings.prompt, second.settings.interventions) == ("second", "Hello", ())
    second.arrive()
    now = source.snapshot()
    assert now.info is not None
    assert (now.info.name, now.steps, now.notice) == ("second", (), "")
    assert now.version > loading.version
    assert first.gone.wait(60)
    assert not second.gone.is_set()
    assert second.sent == [Want(frozenset({"mlp_norm"})), SetPace(0.5), SetBreakpoints(("nan",))]
    assert (source.settings.model, source.pid) == ("second", second.pid)


def test_what_cannot_be_loaded_leaves_the_first_where_it_is() -> None:
    both = Switching()
    source, before = both.source, both.source.snapshot()
    source.load_model("nowhere")
    both.engines[1].history.update(status="failed", error="there is no such folder")
    now = source.snapshot()
    assert now.notice == "cannot load nowhere: there is no such folder; the model that is shown stays"
    assert (now.status, now.info, now.error, now.steps) == (before.status, before.info, None, before.steps)
    assert both.engines[1].gone.is_set()
    assert not both.engines[0].gone.is_set()
    source.send(Advance())
    assert source.snapshot().notice == ""
    assert len(source.snapshot().steps) == 3


def test_of_two_the_last_counts_and_closing_leaves_none_behind() -> None:
    both = Switching()
    both.source.load_model("second")
    both.source.load_model("third")
    assert both.engines[1].gone.is_set()
    both.source.close()
    assert all(engine.gone.is_set() for engine in both.engines)


def test_a_name_is_needed() -> None:
    both = Switching()
    with pytest.raises(UsageError, match="has no name"):
        both.source.load_model(" ")
    assert len(both.engines) == 1


def test_versions_grow_and_nothing_is_made_anew_where_nothing_changed() -> None:
    both = Switching()
    assert both.source.snapshot() is both.source.snapshot()
    both.source.load_model("second")
    versions = [both.source.snapshot().version for _ in range(3)]
    both.engines[1].arrive()
    assert len(set(versions)) == 1
    assert both.source.snapshot().version > versions[0]


def test_a_recording_holds_one_model(tmp_path) -> None:  # type: ignore[no-untyped-def]
    both = Switching()
    recorded = RecordingSource(both.source, both.source.settings)
    assert recorded.load_model("second") == "loading second"
    recorded.record(tmp_path / "run.mav")
    assert both.engines[1].gone.is_set(), "what is recorded stays one run"
    assert "holds one model" in recorded.load_model("third")
    assert len(both.engines) == 2
    recorded.close()


def test_a_view_of_another_model_has_nothing_of_the_one_before() -> None:
    view = (
        View(layer=5, head=3, scroll=2)
        .updated(Snapshot(info=INFO, prompt=make_prompt(), steps=make_steps(9, INFO)))
        .at_step(4)
        .at_candidate(3)
    )
    other = make_info(3, 2, name="other")
    now = view.updated(Snapshot(info=other, prompt=make_prompt(), steps=make_steps(2, other)))
    assert (now.layer, now.head, now.scroll, now.cursor, now.candidate, now.following) == (2, 0, 0, 1, None, True)
    same = view.updated(Snapshot(info=replace(INFO, notes=("x",)), prompt=make_prompt(), steps=make_steps(9, INFO)))
    assert (same.layer, same.head, same.cursor) == (5, 3, 4)
