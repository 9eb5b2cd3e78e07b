"""Reading in the app: a search line as in less, and the keys that go from hit to hit or from surprise to surprise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent
from textual.widgets import Input

from fakes import ListSource, ScriptedSource, make_info, make_prompt, make_step
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.screens.search import SearchScreen
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

TOKENS = (" Par", "is", " is", " a", " city", " of", " light", " and", " of", " Paris", "ians")
FOCUS = AppOptions(panels=LAYOUTS["focus"])


def reading(*tokens: str, nats: dict[int, float] | None = None, **changes: object) -> MavApp:
    """The app on a text of these tokens, each with a surprisal of 0.5 nats unless `nats` says otherwise."""
    info = make_info(6, 4)
    steps = [replace(make_step(at, token, info), logprob=-(nats or {}).get(at, 0.5)) for at, token in enumerate(tokens)]
    return make_app(source=ScriptedSource(steps, info, **changes), options=FOCUS)  # type: ignore[arg-type]


async def test_a_search_goes_from_hit_to_hit_and_begins_anew() -> None:
    app = reading(*TOKENS)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("home", "slash", *"PARIS")
        assert isinstance(app.screen, SearchScreen)
        assert "2 hits" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert app.view.cursor == 9
        assert "'PARIS': hit 2 of 2 · ·Paris 0.50 nats" in screen_text(app)
        await pilot.press("n")
        assert app.view.cursor == 0
        assert "hit 1 of 2 · ·Par 0.50 nats · again from the beginning" in screen_text(app)
        await pilot.press("N")
        assert app.view.cursor == 9
        assert "again from the end" in screen_text(app)
        await pilot.press("N")
        assert app.view.cursor == 0
        assert "again" not in screen_text(app)
        assert sent(app) == []


async def test_the_line_keeps_the_last_text_and_escape_changes_nothing() -> None:
    app = reading(*TOKENS)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("slash", *"of", "enter", "slash")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "of"
        before = app.view.cursor
        await pilot.press("x", "escape")
        await pilot.pause()
        assert (app.view.search, app.view.cursor) == ("of", before)
        await pilot.press("slash", "backspace", "enter")
        await pilot.pause()
        assert app.view.search == ""
        assert "no search: n goes to the next surprising token" in screen_text(app)


async def test_what_is_not_found_is_said_and_the_cursor_stays() -> None:
    app = reading(*TOKENS, prompt=make_prompt("Once upon a time"))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("left", "slash", *"dragon")
        assert "0 hits" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert app.view.cursor == len(TOKENS) - 2
        assert "'dragon' is not in the generated text" in screen_text(app)
        await pilot.press("n")
        assert app.view.cursor == len(TOKENS) - 2
        await pilot.press("slash", *"UPON", "enter")
        await pilot.pause()
        assert "'UPON' is not in the generated text, only in the prompt" in screen_text(app)


@pytest.mark.parametrize("text", ["{0}", "[bold]", "日本", "\\"])
async def test_odd_texts_are_searched_as_they_are(text: str) -> None:
    app = reading("a", text, "b")
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("home", "slash")
        await pilot.pause()
        app.screen.query_one(Input).value = text
        await pilot.press("enter")
        await pilot.pause()
        assert app.view.cursor == 1
        assert f"'{text}': hit 1 of 1" in screen_text(app)


async def test_without_a_search_the_keys_go_to_surprising_tokens() -> None:
    app = reading(*TOKENS, nats={2: 3.0, 5: 2.99, 8: 6.25})
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("home", "n")
        assert app.view.cursor == 2
        assert "surprising token 1 of 2 · ·is 3.00 nats" in screen_text(app)
        await pilot.press("n")
        assert app.view.cursor == 8
        assert "surprising token 2 of 2 · ·of 6.25 nats" in screen_text(app)
        await pilot.press("n")
        assert app.view.cursor == 2
        assert "again from the beginning" in screen_text(app)
        await pilot.press("N")
        assert app.view.cursor == 8
        await pilot.press("slash", *"light", "enter", "escape", "home", "n")
        await pilot.pause()
        assert app.view.search == ""
        assert app.view.cursor == 2, "escape has ended the search"


async def test_a_single_one_and_none() -> None:
    app = reading(*TOKENS, nats={4: 5.0})
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("n", "n")
        assert app.view.cursor == 4
        assert "the only one" in screen_text(app)
    app = reading(*TOKENS)
    async with app.run_test(size=COMPACT) as pilot:
        for key in ("n", "N"):
            await pilot.press(key)
            assert app.view.cursor == len(TOKENS) - 1
            assert "no token here has a surprisal of 3 nats or more" in screen_text(app)
            await pilot.press("escape")


@pytest.mark.parametrize("key", ["slash", "n", "N"])
async def test_before_the_first_token_it_says_so(key: str) -> None:
    for app in (reading(), make_app(source=ListSource([], make_info(6, 4)), options=FOCUS)):
        async with app.run_test(size=COMPACT) as pilot:
            await pilot.press(key)
            await pilot.pause()
            assert len(app.screen_stack) == 1
            assert "there is no token yet" in screen_text(app)


async def test_a_source_without_commands_can_be_read() -> None:
    info = make_info(6, 4)
    app = make_app(source=ListSource([make_step(at, token, info) for at, token in enumerate(TOKENS)], info), options=FOCUS)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("slash", *"light", "enter")
        await pilot.pause()
        assert app.view.cursor == 6


async def test_the_next_hit_is_looked_for_in_the_text_as_it_is_by_then() -> None:
    app = reading(*TOKENS, status="running")
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("slash", *"zebra", "enter")
        await pilot.pause()
        app.source.beat(token=" Zebra", text=" Zebra")  # type: ignore[attr-defined]
        app.tick()
        await pilot.press("n")
        assert app.view.cursor == len(TOKENS)


async def test_one_key_shows_on_the_text_where_the_model_looked() -> None:
    app = reading(*TOKENS)
    async with app.run_test(size=HOME) as pilot:
        assert app.panels.focused == "generated_text"
        await pilot.press("v")
        wanted = app.source.sent[-1]  # type: ignore[attr-defined]
        assert wanted.measures == {"attention_rows", "logit_lens"}
        assert "attention of layer 5" in screen_text(app)


@pytest.mark.parametrize("size", [COMPACT, HOME])
async def test_the_footer_names_the_keys_of_reading_where_there_is_something_to_read(size: tuple[int, int]) -> None:
    app = reading(*TOKENS)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "/ search" in screen_text(app).splitlines()[-1]
        assert "n N peak" in screen_text(app).splitlines()[-1]
        await pilot.press("slash", *"is", "enter")
        await pilot.pause()
        assert "n N hit" in screen_text(app).splitlines()[-1]
        assert "'is' marked" in screen_text(app)
        await pilot.press("1")
        await pilot.pause()
        assert "search" not in screen_text(app).splitlines()[-1]
        await pilot.press("9")
        await pilot.pause()
        footer = screen_text(app).splitlines()[-1]
        await pilot.click("Footer", offset=(footer.index("/ search"), 0))
        await pilot.pause()
        assert isinstance(app.screen, SearchScreen)


async def test_the_candidates_open_over_the_text_of_the_smallest_layout() -> None:
    app = make_app(12, options=AppOptions(layout="minimal", panels=LAYOUTS["minimal"]))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("down")
        await pilot.pause()
        assert "in place of" in screen_text(app)
        row = app.view.candidate
        assert row is not None
        await pilot.press("enter")
        await pilot.pause()
        assert [type(command).__name__ for command in sent(app)] == ["Force"]
        assert "in place of" not in screen_text(app)
        await pilot.press("up")
        await pilot.press("escape")
        await pilot.pause()
        assert "in place of" not in screen_text(app)
