"""Every key, in every state of the app, does something that can be seen or says why not; what it says goes away by itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from driving import HOME, make_app, screen_text, sent, until
from textual.strip import Strip
from textual.widgets import Input

from fakes import ListSource, ScriptedSource, make_info, make_steps
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.controllers import context
from openmav.apps.tui.keys import KEYS
from openmav.apps.tui.kinds import kinds_of
from openmav.apps.tui.widgets.bars import Notice
from openmav.paint import cells
from openmav.plugins import registry
from openmav.protocol.history import History
from openmav.protocol.snapshot import Snapshot
from openmav.record import Branch
from openmav.view import View
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio
LEAVES = {"quit", "interrupt", "suspend"}  # these end or leave the app; tests of their own
OPTIONS = AppOptions(layout="overview")
INFO = make_info(6, 9)


def scripted(count: int = 12, **changes: object) -> MavApp:
    return make_app(source=ScriptedSource(make_steps(count, INFO), INFO, **changes), options=OPTIONS)


STATES: dict[str, Callable[[], MavApp]] = {
    "loading": lambda: MavApp(ListSource([], None, status="loading", reason=None, info=None, prompt=None), OPTIONS),  # type: ignore[arg-type]
    "running": lambda: scripted(status="running"),
    "paused": scripted,
    "paused before the first token": lambda: scripted(0),
    "ended": lambda: scripted(status="ended", reason="length"),
    "failed": lambda: scripted(status="failed", error="the model stopped"),
    "failed at the start": lambda: scripted(0, status="failed", error="no such model"),
    "a recording": lambda: MavApp(ListSource(make_steps(12, INFO), INFO), OPTIONS),
}


class Loading(ScriptedSource):
    """A model that is still being loaded; it takes commands and has nothing to show."""

    def __init__(self) -> None:
        super().__init__((), INFO)
        self.history.update(status="loading", info=None, prompt=None)

    def send(self, command: object) -> None:
        self.sent.append(command)  # type: ignore[arg-type]


STATES["loading"] = lambda: MavApp(Loading(), OPTIONS)


@pytest.mark.parametrize("state", STATES)
async def test_every_key_is_answered(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MavApp, "export_screenshot", lambda *_args, **_named: "<svg/>")
    monkeypatch.setattr("openmav.apps.tui.controllers.display.write_file", lambda *_: None)
    dead, app = [], STATES[state]()
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        view, first = app.view, app.source.snapshot()
        for key in KEYS:
            if key.id in LEAVES:
                continue
            message = app.context.note[:20]
            await as_at_first(app, view, first)
            await until(lambda: not message or message not in notice_text(app))  # noqa: B023
            await pilot.pause()
            before = app.screen._compositor.render_strips()
            await pilot.press(key.keys.split(",")[0])
            if not await changes(app, before):
                dead.append(key.id)
    assert dead == []


def notice_text(app: MavApp) -> str:
    """What stands on the screen where messages do."""
    region = app.query_one(Notice).region
    return "\n".join(screen_text(app).splitlines()[region.y : region.bottom])


async def changes(app: MavApp, before: list[Strip]) -> bool:
    """Whether the screen comes to show something else."""
    with contextlib.suppress(AssertionError):
        await until(lambda: app.screen._compositor.render_strips() != before, 5)
    return app.screen._compositor.render_strips() != before


async def as_at_first(app: MavApp, view: View, first: Snapshot) -> None:
    """No dialog, no message, the panels of the layout, and the source as it was."""
    while len(app.screen_stack) > 1:
        await app.pop_screen()
    if isinstance(app.source, ScriptedSource):
        app.source.history = History(replace(first, version=app.source.snapshot().version + 1))
    app.panels.maximised, app.panels.focused = False, OPTIONS.panels[0]
    app.panels.show(OPTIONS.panels, kinds_of({name: registry.load("panels", name) for name in OPTIONS.panels}, {}))
    app.context.view = view
    app.use_theme(view.theme)
    app.context.close_notice()
    app.controllers.changes.forget()
    app.tick()
    app.redraw()


async def test_a_key_in_a_form_is_typed_or_named_there() -> None:
    app = scripted()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("w")
        await pilot.press("a", "question_mark", "m", "1", "space")
        assert app.screen.query_one(Input).value == "a?m1 "
        assert "enter accepts · escape cancels" in screen_text(app)


@pytest.mark.parametrize("text", ["shortly", "elongated message " * 12])
async def test_a_message_goes_away_by_itself(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, late = scripted(), [0.0]
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: late[0]))  # a clock of its own: a busy machine is late
    async with app.run_test(size=HOME) as pilot:
        app.context.notify(text)
        await pilot.pause()
        assert text.split()[0] in screen_text(app)
        late[0] = 0.9 * max(context.LASTS, len(text) / context.READING)
        app.tick()
        await pilot.pause()
        assert text.split()[0] in screen_text(app)
        late[0] = 1.1 * max(context.LASTS, len(text) / context.READING)
        app.tick()
        await pilot.pause()
        assert text.split()[0] not in screen_text(app)


async def test_what_the_source_says_goes_away_and_what_it_says_next_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    app, late = scripted(), [0.0]
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: late[0]))  # a clock of its own: a busy machine is late
    async with app.run_test(size=HOME) as pilot:
        for number, text in enumerate(("first notice", "second notice", "second notice")):
            app.source.history.update(notice=text, notices=number)  # type: ignore[attr-defined]
            app.tick()
            await pilot.pause()
            assert text in screen_text(app)
            late[0] += context.LASTS + 1
            app.tick()
            await pilot.pause()
            assert text not in screen_text(app)


@pytest.mark.parametrize(
    ("state", "says", "not_there"),
    [
        ("running", ("pause", "next"), ("continue",)),
        ("paused", ("run", "next"), ("continue", "pause ")),
        ("ended", ("continue", "next"), ("pause ",)),
        ("failed", ("scrub", "quit"), ("run", "next", "undo", "force")),
        ("failed at the start", ("help", "quit"), ("run", "next", "scrub", "candidate")),
        ("a recording", ("scrub", "help"), ("run", "next", "undo", "force")),
    ],
)
async def test_the_footer_follows_the_state(state: str, says: tuple[str, ...], not_there: tuple[str, ...]) -> None:
    app = STATES[state]()
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        footer = f"{screen_text(app).splitlines()[-1]} "
        assert all(f" {word}" in footer for word in says), footer
        assert not any(f" {word}" in footer for word in not_there), footer


async def test_a_failed_start_shows_no_empty_frames() -> None:
    app = STATES["failed at the start"]()
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "╭" not in screen_text(app)
        assert "no such model" in screen_text(app)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 240])
async def test_the_layouts_have_a_bar(width: int) -> None:
    app = scripted()
    async with app.run_test(size=(width, 30)) as pilot:
        await pilot.pause()
        bar = screen_text(app).splitlines()[1]
        between = "" if width == 80 else " "
        assert f"1{between}overview" in bar
        assert re.findall(r"\d", bar) == [str(at) for at in range(1, len(app.view.options.layouts) + 1)]
        assert width < 80 or all(f"{at}{between}{name}" in bar for at, name in enumerate(app.view.options.layouts, 1))
        await pilot.click("LayoutBar", offset=(cells(bar[: bar.index("3")]), 0))
        assert app.view.layout == "lens"
        assert f"3{between}lens" in screen_text(app).splitlines()[1]
        await pilot.press("x")
        assert f"3{between}lens*" in screen_text(app).splitlines()[1], "its panels have been rearranged"
        await pilot.press("3")
        assert f"3{between}lens*" not in screen_text(app).splitlines()[1]


async def test_the_speed_on_the_screen_stands_beside_the_models() -> None:
    app = scripted(status="running")
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "22.5 tok/s" in screen_text(app)
        app.context.view = replace(app.view, arrives=3.0)
        app.redraw()
        await pilot.pause()
        assert "shown 3.0 tok/s  model 22.5 tok/s" in screen_text(app)


async def test_the_prompt_of_a_run_by_steps_is_edited_without_starting_it() -> None:
    app = scripted(interactive=True)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("e", "x", "enter")
        await pilot.pause()
        assert [type(command).__name__ for command in sent(app)] == ["EditPrompt"]


async def test_branches_are_listed() -> None:
    """So that the walk through the keys has met this one with something to list, too."""
    app = scripted(branches={"side": Branch("side", scripted().source.snapshot().prompt, make_steps(3, INFO), "main", 1)})  # type: ignore[arg-type]
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("g")
        await pilot.pause()
        assert "side" in screen_text(app)
