"""Somebody's own panel in the app: it shows, and whatever fails in it stays in it."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from driving import HOME, make_app, screen_text, until
from textual import events

from openmav.apps.tui.app import MavApp
from openmav.plugins import registry
from openmav.view.options import AppOptions

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
        assert app.panels.focused == "mine"


async def test_endless_lines_are_cut(own) -> None:
    app = own("import itertools\n" + RENDER + "    return (str(i) for i in itertools.count())\n")
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "this panel failed" not in screen_text(app)


async def test_a_line_of_ten_million_characters_holds_nothing_up(own) -> None:
    long = "'ä' * 10**7"
    notes = "".join(f"def {name}:\n    return {long}\n" for name in ("note(view, width, height)", "heading(view, width)"))
    app = own(f"{RENDER}    return [{long}]\n{notes}")
    began = time.process_time()
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "ää" in screen_text(app)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('odd')", "RecursionError()"])
@pytest.mark.parametrize("where", ["render", "note", "heading", "pick"])
async def test_whatever_it_raises_stays_in_it(own, raised: str, where: str) -> None:
    arguments = {"render": "view, width, height", "note": "view, width, height", "heading": "view, width", "pick": "view, w, h, x, y"}
    body = RENDER + "    return ['x']\n" if where != "render" else ""
    app = own(f"{body}def {where}({arguments[where]}):\n    raise {raised}\n")
    async with app.run_test(size=HOME) as pilot:
        await pilot.click("#panel-mine", offset=(3, 1))
        await pilot.pause()
        assert raised.split("(")[0] in screen_text(app)
        await pilot.press(".", "question_mark", "escape")
        assert len(app.view.steps) == 13
        assert app.is_running


async def test_one_that_hangs_is_given_up_and_keys_answer_meanwhile(own) -> None:
    app = own(RENDER + "    while len(view.steps) > 12: pass\n    return ['fine']\n")
    async with app.run_test(size=HOME) as pilot:
        await until(lambda: "fine" in screen_text(app))
        seconds = []
        for at in range(5):
            began = time.thread_time()
            app._driver.send_message(events.Key("full_stop", "."))  # the pilot waits for an idle processor, which this panel keeps busy
            await until(lambda: len(app.view.steps) >= 13 + at)  # noqa: B023
            seconds.append(time.thread_time() - began)  # of the app's own, which the panel must not take
        assert sorted(seconds)[2] < 1, seconds
        await until(lambda: "no answer after 2 s" in screen_text(app))
        await until(lambda: not [one for one in threading.enumerate() if one.name == "mav own panel"])  # what runs Python code is ended
        await pilot.press("ctrl+c")
        await pilot.pause()
        assert not app.is_running


async def test_one_that_is_slow_is_drawn_less_often_and_says_so(own) -> None:
    app = own(
        "import time\ndrawn = []\n" + RENDER + "    time.sleep(0.25)\n    drawn.append(1)\n    return [f'drawn {len(drawn)} times']\n"
    )
    async with app.run_test(size=HOME) as pilot:
        drawn, began = app.panels.modules["mine"].drawn, time.monotonic()

        def most() -> float:
            """A call of 0.25 s is followed by a rest of nine times as long."""
            return 2 + (time.monotonic() - began) / 2.5

        def shown() -> int:
            times = re.search(r"drawn (\d+) times", screen_text(app))
            return int(times[1]) if times else 0

        await until(lambda: re.search(r"slow: \d", screen_text(app)) is not None and shown() > 0)
        for _ in range(20):
            await pilot.press(".")
        assert len(drawn) <= most()
        count = len(drawn)
        await until(lambda: shown() > count)  # what it shows is brought up to date
        assert len(drawn) <= most()
