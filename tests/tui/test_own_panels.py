"""Somebody's own panel in the app: it shows, and whatever fails in it stays in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from driving import HOME, make_app, screen_text

from openmav import registry
from openmav.apps.options import AppOptions
from openmav.apps.tui.app import MavApp

pytestmark = pytest.mark.asyncio
HEAD = 'TITLE = "Mine"\nNEEDS = ()\nHELP = "What it shows: nothing."\n'
RENDER = "def render(view, width, height):\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the app with a panel of one's own beside the text."""
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})

    def make(body: str) -> MavApp:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + body, encoding="utf-8")
        return make_app(options=AppOptions(panels=("generated_text", registry.add_file("panels", str(path)))))

    return make


async def test_texts_are_lines(own) -> None:
    app = own(RENDER + "    return [f'{len(view.steps)} tokens', '\\x1b[2Jesc', 'a\\nb']\n")
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert all(part in text for part in ("Mine", "12 tokens", "␛[2Jesc", "a⏎b"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (RENDER + "    return [1 / 0]\n", "this panel failed: ZeroDivisionError: division by zero"),
        (RENDER + "    return None\n", "this panel failed: TypeError"),
        (RENDER + "    return [3]\n", "this panel failed: TypeError: a line must be a text or a list of Rich segments, not int"),
        (RENDER + "    return [[3]]\n", "not list"),
        (RENDER + "    return []\ndef note(view, width, height):\n    return view.nothing\n", "AttributeError"),
        (RENDER + "    return []\ndef legend(view, width):\n    return 3\n", "TypeError"),
    ],
)
async def test_a_failure_shows_in_the_panel_and_stops_nothing_else(own, body: str, said: str) -> None:
    app = own(body)
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert said in screen_text(app)
        assert "capital of France" in screen_text(app)
        await pilot.press(".")
        assert len(app.view.steps) == 13


async def test_help_shows_the_end_of_the_traceback(own) -> None:
    app = own(RENDER + "    return [1 / 0]\n")
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("tab", "question_mark")
        await pilot.pause()
        text = re.sub(r"[\s│▐█]+", " ", screen_text(app))  # a long path breaks the line wherever it ends
        assert re.search(r"mine\.py ?\", line 5, in render", text)
        assert "ZeroDivisionError" in text
        await pilot.press("escape")
        assert "this panel failed" in screen_text(app)


@pytest.mark.parametrize("body", ["    return 1 / 0\n", "    return 3\n"])
async def test_a_click_that_fails_is_said(own, body: str) -> None:
    app = own(RENDER + "    return ['x']\ndef pick(view, width, height, x, y):\n" + body)
    async with app.run_test(size=HOME) as pilot:
        await pilot.click("#panel-mine", offset=(3, 1))
        await pilot.pause()
        assert "the panel 'Mine'" in screen_text(app).splitlines()[-2]
        assert app.focus_name == "mine"


async def test_endless_lines_are_cut(own) -> None:
    app = own("import itertools\n" + RENDER + "    return (str(i) for i in itertools.count())\n")
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "this panel failed" not in screen_text(app)
