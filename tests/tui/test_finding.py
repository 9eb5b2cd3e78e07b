"""The command palette and the help are found by what somebody means, not only by mav's own words."""

from __future__ import annotations

import pytest
from driving import COMPACT, HOME, make_app, screen_text, shown

from openmav.apps.tui.finding import match_score
from openmav.apps.tui.keys import KEYS, groups
from openmav.apps.tui.screens.help import HelpScreen


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("entropy", "Panels: go to Attention entropy"),
        ("tint text entropy", "View: colour the text by entropy"),
        ("color entropy", "View: colour the text by entropy"),
        ("zoom", "Panels: maximise this panel, or show all"),
        ("screenshot", "View: save the screen as SVG"),
        ("knock out", ""),
        ("exit", "App: quit"),
        ("layout lens", "Layouts: lens"),
        ("add router", "Panels: add Router"),
    ],
)
async def test_the_first_hit_is_what_is_meant(query: str, first: str) -> None:
    app = make_app()
    async with app.run_test(size=HOME):
        commands = app.get_system_commands(app.screen)
        score, title = max(((match_score(query, one.title, one.help), one.title) for one in commands), key=lambda hit: hit[0])
        assert (title if score else "") == first


async def test_entropy_typed_into_the_palette_colours_the_text_by_entropy() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("ctrl+p")
        await pilot.press(*"text entropy")
        await pilot.pause()
        assert "colour the text by entropy" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert app.view.modes == {"generated_text": "entropy"}


async def test_a_panel_is_found_by_what_it_shows() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("ctrl+p")
        await pilot.press(*"experts", "enter")
        await pilot.pause()
        assert "router" in shown(app)


async def test_commands_stand_in_groups() -> None:
    app = make_app()
    async with app.run_test(size=HOME):
        titles = [one.title.partition(":")[0] for one in app.get_system_commands(app.screen)]
        assert list(dict.fromkeys(titles)) == ["Run", "Change", "View", "Panels", "Layouts", "App"]
        assert titles == sorted(titles, key=list(dict.fromkeys(titles)).index), "each group is in one piece"
    assert sorted(row.id for rows in groups().values() for row in rows) == sorted(row.id for row in KEYS)


async def test_the_help_is_searched_and_kept_to_what_was_found() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("question_mark", "slash", *"temperature", "enter")
        await pilot.pause()
        text = screen_text(app)
        assert "raise the temperature by 0.1" in text
        assert "undo the last token" not in text
        await pilot.press("slash", *"xyzzy")
        await pilot.pause()
        assert "Nothing here has all of" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        assert "How to read it" in screen_text(app), "the first escape shows all again"
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, HelpScreen)
