"""The app: keys, states, and how it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent

from fakes import HOSTILE, ListSource, ScriptedSource, make_info, make_step, make_steps, with_nan
from openmav.panels import needs
from openmav.protocol.commands import Advance, Back, Force, Pause, Resume, Want
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio


async def test_first_paint_needs_no_model() -> None:
    app = make_app(0, status="loading", prompt=None, progress="loading weights", fraction=0.5)
    app.source.history.update(info=None)  # type: ignore[attr-defined]
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        assert "loading weights" in screen_text(app)
        assert "50 %" in screen_text(app)


async def test_it_asks_for_what_its_panels_need() -> None:
    app = make_app(options=AppOptions(panels=("mlp_norm", "timeline")))
    async with app.run_test(size=HOME):
        assert app.source.sent == [Want(needs(["mlp_norm"]))]  # type: ignore[attr-defined]


async def test_space_runs_and_pauses() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("space")
        assert "pause" in screen_text(app).splitlines()[-1]
        await pilot.press("space")
        assert sent(app) == [Resume(), Pause()]


@pytest.mark.parametrize("key", [".", "enter"])
async def test_a_key_makes_one_token(key: str) -> None:
    app = make_app(3)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("left", key)
        assert sent(app) == [Advance(1)]
        assert app.view.cursor == 3
        assert app.view.following


@pytest.mark.parametrize("key", ["b", "backspace"])
async def test_a_key_undoes_a_token(key: str) -> None:
    app = make_app(3)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(key)
        assert sent(app) == [Back(1)]
        assert len(app.view.steps) == 2
        assert app.view.cursor == 1


async def test_back_at_the_start_says_so() -> None:
    app = make_app(0)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("b")
        assert sent(app) == []
        assert "no token to undo" in screen_text(app)


async def test_a_candidate_is_put_in_the_place_of_the_shown_token() -> None:
    app = make_app(6)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "left")
        step = app.view.step
        assert step is not None
        row = step.candidates.token_ids.tolist().index(step.token_id)
        await pilot.press("down", "down")
        assert app.view.candidate == row + 2, "counted from the token that stands there"
        wanted = int(step.candidates.token_ids[row + 2])
        await pilot.press("enter")
        assert sent(app) == [Force(wanted, 3, "main")]
        assert len(app.view.steps) == 4
        assert app.view.step is not None
        assert (app.view.step.token_id, app.view.step.forced) == (wanted, True)
        assert app.view.candidate is None


async def test_forcing_amid_a_run_is_one_command() -> None:
    app = make_app(4)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("space", "down", "enter")
        assert [type(command) for command in sent(app)] == [Resume, Force]


async def test_escape_lets_go_of_a_candidate() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        step = app.view.step
        assert step is not None
        await pilot.press("down")
        app.source.history.update(notice="x")  # type: ignore[attr-defined]
        app.tick()
        assert (app.view.candidate, app.view.following) == (step.candidates.token_ids.tolist().index(step.token_id) + 1, False)
        await pilot.press("escape")
        assert (app.view.candidate, app.view.following) == (None, True)


async def test_help_on_the_panel() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("tab", "question_mark")
        assert "How to read it" in screen_text(app)
        assert "softmax(logits)" in screen_text(app)
        await pilot.press("escape")
        assert "How to read it" not in screen_text(app)


async def test_themes_go_round() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        seen = []
        for _ in range(3):
            seen.append(app.view.theme)
            await pilot.press("t")
        assert seen == ["dark", "light", "contrast"]
        assert app.view.theme == "dark"


async def test_the_screen_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("s")
        assert "saved" in screen_text(app)
    (saved,) = tmp_path.glob("mav-*.svg")
    assert "<svg" in saved.read_text(encoding="utf-8")


async def test_the_palette_offers_every_key() -> None:
    app = make_app()
    async with app.run_test(size=HOME):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Run: run or pause" in titles
        assert "Panels: go to Timeline" in titles
        assert "View: theme light" in titles


async def test_control_c_pauses_then_quits() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("space", "ctrl+c")
        assert sent(app) == [Resume(), Pause()]
        assert app.is_running
        assert "ctrl+c again quits" in screen_text(app)
        await pilot.press("ctrl+c")
        await pilot.pause()
        assert not app.is_running


async def test_a_failure_is_told_and_can_be_left() -> None:
    app = make_app(0, status="failed", error="cannot load 'x': no such folder; give a folder or a hub name")
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        assert "cannot load 'x': no such folder; give a folder or a hub name" in " ".join(screen_text(app).split())
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running


async def test_a_source_that_takes_no_commands_gets_none() -> None:
    source = ListSource(make_steps(5))
    app = make_app(source=source)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("space", ".", "b", "down", "enter", "ctrl+c")
        assert source.sent == []


async def test_nothing_is_drawn_where_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=COMPACT):
        drawn: list[int] = []
        monkeypatch.setattr(app, "redraw", lambda: drawn.append(1))
        app.tick()
        app.tick()
        assert drawn == []
        app.source.send(Advance(1))
        app.tick()
        assert drawn == [1]


async def test_hostile_tokens_leave_the_frames_alone() -> None:
    app = make_app(0)
    async with app.run_test(size=COMPACT) as pilot:
        frame = [line[0] + line[-1] for line in screen_text(app).splitlines()[1:-1]]
        for at, token in enumerate(HOSTILE):
            app.source.history.append(make_step(at, token))  # type: ignore[attr-defined]
            app.tick()
            await pilot.pause()
            assert [line[0] + line[-1] for line in screen_text(app).splitlines()[1:-1]] == frame, ascii(token)


async def test_not_a_number_raises_a_flag() -> None:
    info = make_info()
    source = ScriptedSource([with_nan(make_step(0, info=info), "mlp_norm", 5)], info)
    app = make_app(source=source)
    async with app.run_test(size=COMPACT):
        assert "! NaN or inf in mlp_norm" in screen_text(app).splitlines()[0]


async def test_a_panel_that_fails_shows_it_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=HOME):

        def broken(*_: object) -> None:
            raise ValueError("[bold]oops")

        monkeypatch.setattr(app.panels.modules["timeline"], "render", broken)
        app.redraw()
        assert "this panel failed: ValueError: [bold]oops" in screen_text(app)
        assert "Top predictions" in screen_text(app)


async def test_the_header_says_what_runs() -> None:
    app = make_app()
    async with app.run_test(size=HOME):
        head = screen_text(app).splitlines()[0]
        for part in (
            "SmolLM2-135M",
            "transformers · cpu float32 · 30 layers × 9 heads",
            "22.5 tok/s",
            "model 43.0 ms",
            "capture 1.0 ms",
            "ctx 26/8192",
        ):
            assert part in head


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
async def test_a_signal_ends_the_app_and_restores_the_terminal() -> None:
    import pty
    import signal

    code = """
import sys
sys.path.insert(0, sys.argv[1])
from fakes import ScriptedSource, make_steps
from openmav.view.options import AppOptions
from openmav.apps.tui import run
run(ScriptedSource(make_steps(3)), AppOptions())
"""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", code, str(Path(__file__).parents[1])])
    seen = b""
    while b"perplexity" not in seen:
        seen += os.read(terminal, 65536)
    os.kill(child, signal.SIGTERM)
    while True:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    assert b"\x1b[?1049l" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
