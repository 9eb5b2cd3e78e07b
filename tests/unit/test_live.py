"""What stands on the normal screen once the app has gone."""

from __future__ import annotations

import sys

import pytest

from fakes import ListSource, make_steps
from openmav.apps import live, tui
from openmav.view.options import AppOptions


@pytest.mark.parametrize("what", ["replaced", "closed"])
def test_a_panel_may_do_to_stdout_what_it_likes(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    source, file = ListSource(make_steps(3)), (tmp_path / "out").open("w")

    def run(source: ListSource, *_: object) -> object:
        if what == "closed":
            sys.stdout.close()
        else:
            sys.stdout = None  # type: ignore[assignment]
        return source.snapshot()

    monkeypatch.setattr(tui, "run", run)
    monkeypatch.setattr(sys, "stdout", file)
    assert len(live.show(source, AppOptions()).steps) == 3
    file.close()
    assert ("3 tokens" in (tmp_path / "out").read_text()) == (what == "replaced")
    assert source.closed
