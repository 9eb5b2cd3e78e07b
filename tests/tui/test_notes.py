"""What is to be known of the model: said once at the start, and in every panel's help; and the key for a panel's kinds."""

from __future__ import annotations

from dataclasses import replace

from driving import COMPACT, HOME, make_app, screen_text
from textual.widgets import Static

from fakes import ScriptedSource, make_info, make_steps
from openmav.apps.tui.app import MavApp
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

TWICE = "the prompt begins with <s> twice; leave it out of the text, the tokenizer adds it"


def app_with(*notes: str, options: AppOptions | None = None) -> MavApp:
    info = replace(make_info(6, 4), notes=notes)
    return make_app(source=ScriptedSource(make_steps(3, info), info), options=options)


async def test_a_note_is_shown_until_escape_closes_it() -> None:
    app = app_with(TWICE)
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert f"note: {TWICE} (escape closes)" in screen_text(app)
        await pilot.press("left")
        assert TWICE in screen_text(app)
        await pilot.press("escape")
        assert "note:" not in screen_text(app)


async def test_a_note_on_another_prompt_is_shown_again() -> None:
    app = app_with(TWICE)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("escape")
        app.source.history.update(info=replace(app.view.info, notes=("another note",)))  # type: ignore[attr-defined,type-var]
        app.tick()
        await pilot.pause()
        assert "note: another note" in screen_text(app)


async def test_notes_that_are_too_long_say_that_there_is_more_and_the_help_has_all() -> None:
    app = app_with(*[f"note number {at} says something of some length" for at in range(9)])
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        assert "number 0" in screen_text(app)
        assert "number 8" not in screen_text(app)
        assert any(row.rstrip().endswith("…") for row in screen_text(app).split("\n")[-3:])
        await pilot.press("question_mark")
        assert "note number 8 says something" in str(app.screen.query_one("#text", Static).render())


async def test_the_readers_own_key_for_escape_is_named() -> None:
    app = app_with(TWICE, options=AppOptions(keys={"escape": "z"}))
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "(z closes)" in screen_text(app)


async def test_the_key_for_kinds_is_offered_where_the_panel_has_some() -> None:
    app = app_with(options=AppOptions(panels=LAYOUTS["attention"]))
    async with app.run_test(size=HOME) as pilot:
        for name, offered in (("attention_map", True), ("timeline", False)):
            app.panels.focused = name
            app.redraw()
            await pilot.pause()
            assert ("v view" in screen_text(app).split("\n")[-1]) == offered, name
