"""The key r: a recording starts late, or a line says why it can't."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import COMPACT, make_app, screen_text

from fakes import ListSource, make_info, make_steps
from openmav.protocol.snapshot import Snapshot
from openmav.recording.reader import Recording
from openmav.recording.replay import snapshot_of
from openmav.recording.source import RecordingSource
from openmav.settings import Settings


class Observed(ListSource):
    """A source that can be recorded."""

    pid = None

    def observe(self, changed: Callable[[], None] | None) -> Snapshot:
        return self._now

    def latest(self) -> Snapshot:
        return self._now

    def name_panel(self, name: str) -> None: ...


def recordable() -> RecordingSource:
    return RecordingSource(Observed(make_steps(6, make_info()), make_info()), Settings())


async def test_it_starts_late_and_has_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(source=recordable())
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("r")
        await pilot.pause()
        assert "recording into mav-" in screen_text(app)
    app.source.close()
    (path,) = tmp_path.iterdir()
    with Recording(path) as recording:
        assert len(snapshot_of(recording).steps) == 6


@pytest.mark.skipif(os.name == "nt", reason="the working directory cannot be removed there")
async def test_a_folder_that_is_gone_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    app = make_app(source=recordable())
    async with app.run_test(size=COMPACT) as pilot:
        folder.rmdir()
        await pilot.press("r")
        await pilot.pause()
        assert "cannot write mav-" in screen_text(app)
        await pilot.press("left")  # the app goes on
        assert app.view.cursor == 4
    monkeypatch.chdir(tmp_path)


async def test_a_folder_that_takes_no_file_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = os.open

    def read_only(path: str, *arguments: int) -> int:
        if str(path).endswith(".mav"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return kept(path, *arguments)

    monkeypatch.setattr(os, "open", read_only)
    app = make_app(source=recordable())
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("r")
        await pilot.pause()
        assert "cannot write mav-" in screen_text(app)
    assert list(tmp_path.iterdir()) == []
