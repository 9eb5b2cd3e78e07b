"""Layouts and keys in the app: switched live, panels added, removed, moved, resized; keys put elsewhere."""

from __future__ import annotations

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent, shown, tile

from openmav.panels import needs
from openmav.protocol.commands import Advance, SetSampling, Want
from openmav.view.layouts import COMPARE, LAYOUTS, LEADS
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio


def wanted(app) -> list[frozenset[str]]:
    return [command.measures for command in app.source.sent if isinstance(command, Want)]


@pytest.mark.parametrize("name", LAYOUTS)
async def test_every_layout_opens_by_its_key_and_asks_for_what_it_needs(name: str) -> None:
    app = make_app(options=AppOptions(panels=("residual_norms",)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press(str(list(LAYOUTS).index(name) + 1))
        await pilot.pause()
        assert shown(app) == [panel for panel in shown(app) if panel in LAYOUTS[name]]
        assert set(shown(app)) == set(LAYOUTS[name])
        assert wanted(app)[-1] == needs(LAYOUTS[name], view=app.view)
        assert "failed" not in screen_text(app)


async def test_own_layouts_and_own_panels() -> None:
    layouts = {**LAYOUTS, "mine": ("timeline", "mlp_norm")}
    app = make_app(options=AppOptions(layouts=layouts, own_panels=("residual_norms",)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("6")
        assert "residual_norms" in app.panels.modules
        app.controllers.layouts.show("mine")
        await pilot.pause()
        assert list(app.panels.modules) == ["timeline", "mlp_norm", "residual_norms"]
        assert set(shown(app)) == set(app.panels.modules)


async def test_a_panel_goes_and_another_comes() -> None:
    app = make_app(options=AppOptions(panels=("generated_text", "timeline", "mlp_norm")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("tab", "x")
        assert list(app.panels.modules) == ["generated_text", "mlp_norm"]
        assert app.panels.focused == "mlp_norm"
        await pilot.press("x", "x")
        assert list(app.panels.modules) == ["generated_text"]
        assert "the last panel cannot be removed" in screen_text(app)
        assert wanted(app)[-1] == frozenset()
        app.panels.add("attention_entropy")
        await pilot.pause()
        assert shown(app) == ["generated_text", "attention_entropy"]
        assert wanted(app)[-1] == {"attention_entropy"}
        assert app.panels.focused == "attention_entropy"


async def test_a_panel_changes_places_with_its_neighbour() -> None:
    app = make_app(options=AppOptions(panels=("generated_text", "mlp_norm", "top_predictions", "residual_norms")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("tab")
        before = tile(app, "mlp_norm").place, tile(app, "residual_norms").place
        await pilot.press("greater_than_sign")
        assert list(app.panels.modules) == ["generated_text", "residual_norms", "top_predictions", "mlp_norm"]
        assert tile(app, "residual_norms").place.x == before[0].x
        assert tile(app, "mlp_norm").place.x > before[1].x - 6
        await pilot.press("greater_than_sign")
        assert "cannot move further" in screen_text(app)
        await pilot.press("less_than_sign", "escape")
        assert tile(app, "mlp_norm").place == before[0]


async def test_a_panel_grows_and_shrinks_within_bounds() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        first = tile(app, "generated_text").place
        await pilot.press("ctrl+right", "ctrl+up")
        larger = tile(app, "generated_text").place
        assert larger.width > first.width
        assert larger.height > first.height
        await pilot.press("ctrl+left", "ctrl+down")
        assert tile(app, "generated_text").place == first
        await pilot.press(*["ctrl+right", "ctrl+up"] * 20)
        assert set(shown(app)) == set(app.panels.modules)
        assert all(panel.place.height >= 3 for panel in app.query("PanelTile"))
        await pilot.press("1")
        assert tile(app, "generated_text").place == first


async def test_the_palette_offers_layouts_and_panels() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Layouts: lens" in titles
        assert "Panels: add Attention norm" in titles
        assert "Panels: add Timeline" not in titles
        assert not any("layout lens" in title for title in titles)
        await pilot.press("ctrl+p")
        await pilot.press(*"layout minimal", "enter")
        await pilot.pause()
        assert list(app.panels.modules) == list(LAYOUTS["minimal"])


async def test_the_temperature_changes_by_keys() -> None:
    app = make_app()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("plus", "equals_sign", "minus", "minus", "minus")
        found = [command.sampling.temperature for command in sent(app) if isinstance(command, SetSampling)]
        assert found == [0.1, 0.2, 0.1, 0.0, 0.0]
        assert "(greedy)" in screen_text(app)


async def test_keys_of_the_readers_own() -> None:
    app = make_app(3, options=AppOptions(keys={"next": "f,f5", "help": "h", "back": "z"}))
    async with app.run_test(size=HOME) as pilot:
        footer = screen_text(app).splitlines()[-1]
        assert "f next" in footer
        assert "h help" in footer
        await pilot.press("f", "f5", ".")
        assert sent(app) == [Advance(1), Advance(1)]
        await pilot.press("h")
        await pilot.pause()
        page = screen_text(app)
        assert "What it shows" in page
        from openmav.apps.tui.keys import key_lines

        assert ("f or f5", "generate one token") in key_lines(app.view.options.keys)


async def test_small_screens_switch_layouts_too() -> None:
    app = make_app()
    async with app.run_test(size=(60, 16)) as pilot:
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause()
            assert shown(app) == [app.panels.focused]


@pytest.mark.parametrize("layout", LEADS)
async def test_a_small_screen_opens_on_the_panel_that_the_layout_is_for(layout: str) -> None:
    layouts = {**COMPARE, **LAYOUTS}
    app = make_app(options=AppOptions(panels=layouts[layout], layouts=layouts))
    async with app.run_test(size=(60, 16)):
        assert shown(app) == [LEADS[layout]]
