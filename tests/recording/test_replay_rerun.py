"""`mav replay --rerun`: the engine makes the text of a recording again, with its branches, and goes on."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from runs import changed

from openmav.cli.main import main
from openmav.engine import EngineSource
from openmav.protocol.commands import Advance, Back, SetPace
from openmav.protocol.snapshot import Snapshot
from openmav.recording.facts import read_settings
from openmav.recording.reader import Recording
from openmav.recording.replay import retrace_of, snapshot_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    changed(tmp_path / "run.mav")
    return tmp_path / "run.mav"


@pytest.fixture
def rerun(warm_engines: None, run: Path) -> Iterator[Callable[[], tuple[EngineSource, Snapshot]]]:
    """Begins to make the recording again; the engine, and the recording as replay shows it."""
    sources: list[EngineSource] = []

    def begin() -> tuple[EngineSource, Snapshot]:
        with Recording(run) as recording:
            now = snapshot_of(recording)
            source = EngineSource(replace(read_settings(recording.meta["settings"]), interactive=True))
            sources.append(source)
            source.send(retrace_of(recording))
        return source, now

    yield begin
    for source in sources:
        source.close()


def wait(source: EngineSource, until: Callable[[Snapshot], bool]) -> Snapshot:
    end = time.monotonic() + 60
    while not until(now := source.snapshot()):
        assert time.monotonic() < end, now
        assert now.error is None
        time.sleep(0.02)
    return now


def texts(now: Snapshot) -> dict[str, list[tuple[int, bool, str]]]:
    """{branch: its tokens, whether each was forced, and its sampling}."""
    assert now.prompt is not None
    branches = {**{name: branch.steps for name, branch in now.branches.items()}, now.branch: now.steps}
    return {name: [(step.token_id, step.forced, str(step.sampling)) for step in steps] for name, steps in branches.items()}


def test_it_comes_to_the_same_branches_and_goes_on(rerun: Callable[[], tuple[EngineSource, Snapshot]]) -> None:
    source, recorded = rerun()
    now = wait(source, lambda now: now.prompt is not None and texts(now) == texts(recorded))
    assert now.status == "paused"
    assert now.notice == ""
    source.send(Back(1))
    source.send(Advance(3))
    now = wait(source, lambda now: len(now.steps) == len(recorded.steps) + 2)
    assert [step.token_id for step in now.steps[: len(recorded.steps)]] == [step.token_id for step in recorded.steps]


def test_a_token_that_is_another_now_is_named(rerun: Callable[[], tuple[EngineSource, Snapshot]], run: Path) -> None:
    database = sqlite3.connect(run)
    database.execute("UPDATE steps SET token_id = 9, token = 'x' WHERE branch = 1 AND step = 3")
    database.commit()
    database.close()
    source, _ = rerun()
    now = wait(source, lambda now: bool(now.notice))
    assert now.notice.startswith("token 3 is ")
    assert now.notice.endswith("and was 'x': the text goes another way from here")
    assert len(now.steps) == 4


def test_another_command_stops_it(rerun: Callable[[], tuple[EngineSource, Snapshot]]) -> None:
    source, recorded = rerun()
    source.send(SetPace(0.5))
    now = wait(source, lambda now: now.pace == 0.5)
    assert len(now.branches) < len(recorded.branches)


def test_follow_and_rerun_exclude_each_other(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run), "--follow", "--rerun"]) == 2
    assert capsys.readouterr().err.startswith("mav: --follow looks at a recording that is being written")
