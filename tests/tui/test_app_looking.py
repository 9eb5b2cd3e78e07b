"""The app as one looks around in it: tokens, layers and heads that are selected, sizes, layouts, the mouse."""

from __future__ import annotations

import pytest
from driving import COMPACT, HOME, SMALL, make_app, screen_text, sent, shown, tile

from openmav.errors import UsageError
from openmav.protocol.commands import Advance, Resume
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio


async def test_scrubbing() -> None:
    app = make_app(12)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("left", "left")
        assert (app.view.cursor, app.view.following) == (9, False)
        await pilot.press("home")
        assert app.view.cursor == 0
        await pilot.press("left")
        assert app.view.cursor == 0
        await pilot.press("end")
        assert (app.view.cursor, app.view.following) == (11, True)
        assert sent(app) == []


async def test_a_scrubbed_view_stays_while_tokens_come() -> None:
    app = make_app(5)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("left", "left")
        app.source.send(Resume())
        app.source.beat()  # type: ignore[attr-defined]
        app.tick()
        assert app.view.cursor == 2
        assert len(app.view.steps) == 6


async def test_layers_and_heads() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        assert app.view.layer == 29
        await pilot.press("left_square_bracket", "right_curly_bracket", "right_curly_bracket", "left_curly_bracket")
        assert (app.view.layer, app.view.head) == (28, 1)
        await pilot.press(*["left_square_bracket"] * 40)
        assert app.view.layer == 0
        assert "▸ 0" in screen_text(app)
        await pilot.press("right_square_bracket")
        assert app.view.layer == 1


async def test_pages_of_layers() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("pagedown", "pagedown", "pagedown")
        assert app.view.scroll == 30 - app.panels.layer_rows()
        await pilot.press("pagedown")
        assert "there are no more layers below" in screen_text(app)
        await pilot.press("pageup", "pageup", "pageup", "pageup")
        assert app.view.scroll == 0


async def test_a_selected_layer_stays_in_sight_where_the_screen_or_the_layout_changes() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press(*["left_square_bracket"] * 17)
        await pilot.resize_terminal(*COMPACT)
        assert app.view.scroll <= 29 - app.view.layer < app.view.scroll + app.panels.layer_rows()
        await pilot.press("pageup", "pageup", "6", "2")
        assert "▸12" in screen_text(app), "a layout without layers lay between"
        await pilot.press("pageup", "pageup")
        scroll = app.view.scroll
        await pilot.resize_terminal(COMPACT[0], COMPACT[1] + 1)
        assert app.view.scroll == scroll, "who scrolled away from it stays there"


async def test_tab_goes_round_and_m_maximises() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        assert len(shown(app)) == 7
        await pilot.press("tab", "m")
        assert shown(app) == ["top_predictions"]
        await pilot.press("shift+tab")
        assert shown(app) == ["generated_text"]
        await pilot.press("escape")
        assert len(shown(app)) == 7


async def test_a_small_screen_shows_one_panel_at_a_time() -> None:
    app = make_app()
    async with app.run_test(size=SMALL) as pilot:
        assert shown(app) == ["generated_text"]
        await pilot.press("tab")
        assert shown(app) == ["top_predictions"]
        await pilot.resize_terminal(*HOME)
        await pilot.pause()
        assert len(shown(app)) == 7
        screen_text(app)


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (20, 5), (72, 20), COMPACT, HOME, (240, 70)])
async def test_any_size(size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.resize_terminal(*size)
        await pilot.pause()
        screen_text(app)


async def test_chosen_panels_and_a_grid() -> None:
    app = make_app(options=AppOptions(panels=("attention_norms", "timeline", "top_predictions"), grid_rows=3))
    async with app.run_test(size=HOME):
        assert [(tile(app, name).region.x, tile(app, name).region.width) for name in app.panels.modules] == [(0, 160)] * 3
        assert len({tile(app, name).region.y for name in app.panels.modules}) == 3


async def test_unknown_names_stop_before_the_screen_opens() -> None:
    with pytest.raises(UsageError, match=r"unknown panel 'mlp'\..*mlp_norm"):
        make_app(options=AppOptions(panels=("mlp",)))
    with pytest.raises(UsageError, match=r"unknown theme 'drak'\. Did you mean 'dark'"):
        make_app(options=AppOptions(theme="drak"))


async def test_mouse() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.click("#panel-timeline", offset=(2 + 4 * 4 + 1, 2))
        assert app.view.cursor == 4, "a token has four cells while there is room"
        assert app.panels.focused == "timeline"
        await pilot.click("#panel-mlp_norm", offset=(8, 1 + 3))
        assert app.view.layer == 26
        await pilot.click("#panel-top_predictions", offset=(8, 1 + 1 + 2))
        assert app.view.candidate == 2
        await pilot.click("#panel-attention_entropy", offset=(tile(app, "attention_entropy").size.width - 3, 1))
        assert (app.view.layer, app.view.head) == (29, 8)
        await pilot.click("Header")
        assert sent(app) == [Resume()]


async def test_the_wheel_scrolls_layers_together() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        widget = tile(app, "residual_norms")
        from openmav.apps.tui.widgets.messages import Wheeled

        widget.post_message(Wheeled("residual_norms", 1))
        await pilot.pause()
        assert app.view.scroll == 2
        assert " 27" in screen_text(app)
        widget.post_message(Wheeled("timeline", -1))
        await pilot.pause()
        assert app.view.cursor == 10


async def test_a_click_on_a_key_is_the_key() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        column = screen_text(app).splitlines()[-1].index("next")
        await pilot.click("Footer", offset=(column, 0))
        assert sent(app) == [Advance(1)]


async def test_where_one_panel_fits_a_layout_shows_the_one_that_it_is_for() -> None:
    app = make_app(12)
    async with app.run_test(size=SMALL) as pilot:
        seen = {}
        for key, layout in zip("23456789", list(LAYOUTS)[1:]):
            await pilot.press(key)
            assert app.view.layout == layout
            seen[layout] = shown(app)
        assert seen["lens"] == ["logit_lens"]
        assert seen["minimal"] == ["generated_text"]
        assert [layout for layout, panels in seen.items() if len(panels) != 1 or panels[0] not in LAYOUTS[layout]] == []
        texts = [layout for layout, panels in seen.items() if panels == ["generated_text"]]
        assert texts == ["minimal", "focus"], "all others have something of their own"
