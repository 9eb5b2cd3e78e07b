"""Hands on: forms and lists send the right commands, say what is wrong as one types, and change nothing on escape."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent
from textual import events
from textual.widgets import Input, OptionList, Static

from fakes import ListSource, make_info, make_prompt, make_steps, sampled
from openmav.apps.tui.screens.forms import FormScreen, ListScreen
from openmav.protocol.commands import Advance, EditPrompt, Force, Forward, Pause, Rename, Resume, SetSampling, Switch, Type
from openmav.record import Branch
from openmav.view.options import AppOptions

INFO = make_info(4, 4)
STEPS = make_steps(12, INFO)
OTHER = Branch("branch 1", make_prompt(), (*STEPS[:5], *make_steps(9, INFO, seed=3)[5:]), "main", 5)


def with_branches(**changes: object):
    return make_app(12, layers=4, branches={"branch 1": OTHER}, **changes)


async def test_the_sampling_form_takes_numbers_only() -> None:
    app = make_app(3, sampling=sampled())
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("p")
        assert isinstance(app.screen, FormScreen)
        first = app.screen.query(Input).first()
        assert first.value == "0.8"
        first.value = "hot"
        await pilot.pause()
        assert "temperature must be a number, not 'hot'" in screen_text(app)
        await pilot.press("enter")
        assert isinstance(app.screen, FormScreen)
        first.value = "-1"
        await pilot.pause()
        assert "temperature must be 0 (greedy) or more" in screen_text(app)
        first.value = "1.5"
        app.screen.query_one("#field-top_k", Input).value = "7"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [SetSampling(replace(sampled(), temperature=1.5, top_k=7))]
        assert app.view.sampling.top_k == 7


@pytest.mark.parametrize("size", [COMPACT, HOME])
async def test_the_sampling_form_shows_what_each_stage_leaves_while_one_types(size: tuple[int, int]) -> None:
    app = make_app(3)
    async with app.run_test(size=size) as pilot:
        await pilot.press("p")
        await pilot.pause(0.2)
        first = screen_text(app)
        assert "what each stage leaves of the candidates at token 2" in first
        assert "greedy" in first
        app.screen.query(Input).first().value = "0.5"
        await pilot.pause(0.2)
        cold = app.view.preview
        assert cold is not None
        assert cold.sampling.temperature == 0.5
        assert re.search(r"temp\S* 0.5 +top-k 50", screen_text(app))
        assert f"{100 * cold.sampled[0]:.1f} %" in screen_text(app)
        app.screen.query(Input).first().value = "0.5x"
        await pilot.pause(0.2)
        assert f"{100 * cold.sampled[0]:.1f} %" in screen_text(app), "the last preview stays"
        await pilot.press("escape")
        await pilot.pause()
        assert sent(app) == []
        assert "preview" not in screen_text(app), "what was only typed is not what holds"


async def test_a_temperature_that_holds_from_the_next_token_on_has_a_table_of_its_own() -> None:
    app = make_app(3)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("plus", "plus", "plus")
        await pilot.pause(0.2)
        text = screen_text(app)
        assert "Top predictions: preview of T 0.30 · top-k 50" in text
        assert "T 0.30 · top-k 50, from the next token on" in text
        assert "greedy" not in text
        assert f"{100 * app.view.preview.sampled[0]:.1f} %" in text  # type: ignore[union-attr]
        await pilot.press("left")
        await pilot.pause()
        assert "preview" not in screen_text(app), "an earlier token shows how it was chosen"
        await pilot.press("right", *["minus"] * 3)
        await pilot.pause(0.2)
        assert "preview" not in screen_text(app)
        assert "greedy" in screen_text(app)


@pytest.mark.parametrize("key", ["p", "w", "e", "g", "a"])
async def test_escape_changes_nothing(key: str) -> None:
    app = with_branches()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert isinstance(app.screen, FormScreen | ListScreen)
        await pilot.resize_terminal(60, 16)
        await pilot.press("escape")
        await pilot.pause()
        assert sent(app) == []
        assert len(app.screen_stack) == 1


async def test_words_go_after_the_newest_token_or_in_the_place_of_an_older_one() -> None:
    app = make_app(8)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("w", "enter")  # nothing typed is nothing put
        assert sent(app) == []
        await pilot.press("space", "P", "a", "q", "enter")
        await pilot.pause()
        assert sent(app) == [Type(" Paq", None, "main")]
        await pilot.press("left", "left", "w", "x", "enter")
        await pilot.pause()
        assert sent(app)[1:] == [Type("x", 5, "main")]


async def test_another_prompt_runs_at_once_and_keeps_line_breaks() -> None:
    app = make_app(2, prompt=make_prompt("a\nb\\n"))
    pasted = "\nx\r\ny\\z"
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("e")
        assert "a⏎b\\n" in screen_text(app)
        await pilot.press("end", "space", "c", "ctrl+j")
        app.post_message(events.Paste(pasted))
        await pilot.pause()
        assert "a⏎b\\n c⏎⏎x⏎y\\z" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [EditPrompt("a\nb\\n c\n\nx\ny\\z"), Resume()]


async def test_pasted_words_keep_their_lines_and_a_number_has_one() -> None:
    app = make_app(8)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("w")
        app.post_message(events.Paste("one\rtwo\n"))
        await pilot.pause()
        assert "one⏎two⏎" in screen_text(app)
        field = app.screen.query_one(Input)
        for at, cell in enumerate((0, 1, 2, 3, 4, 7)):  # a click puts the cursor where it is, the line break counting as one cell
            await pilot.click(field, offset=(cell, 0))
            assert field.cursor_position == (0, 1, 2, 3, 4, 7)[at]
        await pilot.press("end", "backspace", "enter")
        await pilot.pause()
        assert sent(app) == [Type("one\ntwo", None, "main")]
        await pilot.press("p")
        app.post_message(events.Paste("1.5\n"))
        await pilot.pause()
        assert app.screen.query(Input).first().value == "1.5"


@pytest.mark.parametrize("key", ["p", "w", "e", "g", "a", "k", "question_mark", "ctrl+p"])
@pytest.mark.parametrize("twice", ["enter", "escape"])
async def test_a_key_twice_at_once_closes_a_screen_once(key: str, twice: str) -> None:
    app = with_branches(interventions=("ablate L1.H1",))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(key)
        await pilot.pause(0.3)
        assert len(app.screen_stack) == 2
        if key == "w":
            await pilot.press("x")
        if key == "ctrl+p":
            await pilot.press("t", "h", "e", "m", "e", "space", "l", "i", "g", "h", "t", "down")
            await pilot.pause(0.3)
        theme = app.theme
        for _ in range(5):  # all before the first of them is worked on
            app._driver.send_message(events.Key(twice, None))
        await pilot.pause(0.3)
        assert app.is_running
        assert app._exception is None
        assert len(app.screen_stack) in (1, 2)
        assert len([one for one in sent(app) if not isinstance(one, Advance | Resume)]) <= 1, "what the form asks for is asked for once"
        if key == "ctrl+p":
            assert len(app.screen_stack) == 1
            assert (app.theme != theme) == (twice == "enter")


async def test_a_key_after_the_last_screen_is_dropped() -> None:
    """The app is on its way out, and keys that were typed before are still under way."""
    app = make_app(3)
    async with app.run_test(size=COMPACT):
        stack = app._screen_stack
        screens = stack.copy()
        stack.clear()
        await app.on_event(events.Key("escape", None))
        stack += screens


async def test_forward_needs_tokens_ahead() -> None:
    app = make_app(2)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("f")
        assert "nothing to redo" in screen_text(app)
    app = make_app(2, undone=3)
    async with app.run_test(size=HOME) as pilot:
        assert "3 undone" in screen_text(app)
        await pilot.press("f")
        assert sent(app) == [Forward(1)]


async def test_the_list_of_branches() -> None:
    app = with_branches()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("g")
        await pilot.pause()
        rows = app.screen.query_one(OptionList)
        assert "● main" in screen_text(app)
        assert rows.highlighted == 0
        await pilot.press("down", "c")
        assert app.view.other == "branch 1"
        await pilot.press("g", "down", "n")
        field = app.screen.query_one(Input)
        field.value = ""
        await pilot.press("enter")
        assert "a branch needs a name" in str(app.screen.query_one("#wrong", Static).render())
        field.value = "what if"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [Rename("branch 1", "what if")]
        assert app.view.other == "what if"
        await pilot.press("g", "down", "enter")
        await pilot.pause()
        assert sent(app)[-1] == Switch("branch 1")


@pytest.mark.parametrize("state", [{"status": "running"}, {"status": "prefill", "resumes": True}])
async def test_what_is_put_amid_a_run_names_its_place(state: dict[str, object]) -> None:
    """The run may be tokens further on when the command arrives, also while tokens are being read again."""
    app = make_app(8, **state)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "left", "down")
        step, row = app.view.step, app.view.candidate
        assert step is not None
        assert row is not None
        wanted = int(step.candidates.token_ids[row])
        app.source.history.extend(make_steps(11, INFO)[8:])  # type: ignore[attr-defined]
        await pilot.press("enter")
        assert sent(app) == [Force(wanted, 5, "main")]
        assert app.source.steps[5].token_id == wanted  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["space", "ctrl+c"])
async def test_a_run_that_reads_tokens_again_can_be_paused(key: str) -> None:
    app = make_app(8, status="prefill", resumes=True)
    async with app.run_test(size=HOME) as pilot:
        assert "pause" in screen_text(app).splitlines()[-1]
        await pilot.press(key)
        assert sent(app) == [Pause()]
        assert app.is_running


async def test_a_source_that_cannot_says_so() -> None:
    app = make_app(source=ListSource(STEPS, INFO), options=AppOptions())
    async with app.run_test(size=HOME) as pilot:
        for key, what in (
            ("p", "sampling parameters"),
            ("w", "inserting text"),
            ("e", "editing the prompt"),
            ("g", "branches"),
            ("a", "interventions"),
        ):
            await pilot.press(key)
            assert f"this source does not support {what}" in screen_text(app)
        assert app.source.sent[1:] == []  # type: ignore[attr-defined]
