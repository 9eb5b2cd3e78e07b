"""Hands on: forms and lists send the right commands, say what is wrong as one types, and change nothing on escape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent
from textual.widgets import Input, OptionList, Static

from fakes import ListSource, make_info, make_prompt, make_steps, sampled
from openmav.apps.options import AppOptions
from openmav.apps.tui.forms import FormScreen, ListScreen
from openmav.record import Branch
from openmav.source import Back, EditPrompt, Forward, Intervene, Rename, Run, SetSampling, Switch, Type

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
        assert sent(app) == [Type(" Paq")]
        await pilot.press("left", "left", "w", "x", "enter")
        await pilot.pause()
        assert sent(app)[1:] == [Back(3), Type("x")]


async def test_another_prompt_runs_at_once_and_keeps_line_breaks() -> None:
    app = make_app(2, prompt=make_prompt("a\nb\\n"))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("e")
        field = app.screen.query_one(Input)
        assert field.value == "a\\nb\\\\n"
        field.value += " c\\n"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [EditPrompt("a\nb\\n c\n"), Run()]


async def test_forward_needs_tokens_ahead() -> None:
    app = make_app(2)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("f")
        assert "no token ahead" in screen_text(app)
    app = make_app(2, ahead=3)
    async with app.run_test(size=HOME) as pilot:
        assert "3 ahead" in screen_text(app)
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


async def test_a_run_is_paused_before_a_branch_is_switched() -> None:
    app = with_branches(status="running")
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("g", "down", "enter")
        await pilot.pause(0.2)
        assert [type(command).__name__ for command in sent(app)] == ["Pause", "Switch"]


async def test_interventions_are_added_and_taken_off() -> None:
    app = make_app(3, layers=4)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("a")
        field = app.screen.query_one(Input)
        assert field.value == "ablate L3.H0"
        field.value = "ablate L3.Q0"
        await pilot.press("enter")
        assert isinstance(app.screen, FormScreen)
        assert "Q0" in str(app.screen.query_one("#wrong", Static).render())
        field.value = "amplify L2.attn=0.5"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [Intervene(("amplify L2.attn=0.5",))]
    on = ("ablate L3.H0", "amplify L2.attn=0.5")
    for keys, left in ((("d",), on[1:]), (("down", "d"), on[:1]), (("0",), ())):
        app = make_app(3, layers=4, interventions=on)
        async with app.run_test(size=HOME) as pilot:
            assert "▾ ablate L3.H0 and 1 more" in screen_text(app)
            await pilot.press("a", *keys)
            await pilot.pause()
            assert sent(app) == [Intervene(left)]


async def test_a_source_that_cannot_says_so() -> None:
    app = make_app(source=ListSource(STEPS, INFO), options=AppOptions())
    async with app.run_test(size=HOME) as pilot:
        for key, what in (
            ("p", "choose otherwise"),
            ("w", "put words"),
            ("e", "take another prompt"),
            ("g", "branch"),
            ("a", "touch its model"),
        ):
            await pilot.press(key)
            assert f"this source cannot {what}" in screen_text(app)
        assert app.source.sent[1:] == []  # type: ignore[attr-defined]
