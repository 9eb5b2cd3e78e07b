"""Another model from the palette: asked for by name, and only where the source can load one."""

from __future__ import annotations

from driving import HOME, make_app, screen_text

from fakes import ListSource, make_info, make_steps
from openmav.apps.tui.app import MavApp
from openmav.view.options import AppOptions


async def test_another_model_is_asked_for_in_the_palette() -> None:
    app, asked = make_app(3), []
    app.source.load_model = lambda name: asked.append(name) or f"loading {name}"  # type: ignore[attr-defined, func-returns-value]
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("ctrl+p")
        await pilot.pause(0.3)
        await pilot.press(*"another model")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.3)
        await pilot.press("enter")
        assert "type a name or a folder" in screen_text(app)
        await pilot.press(*"gpt2", "enter")
        await pilot.pause()
        assert asked == ["gpt2"]
        assert "loading gpt2" in screen_text(app)


async def test_a_recording_has_no_other_model() -> None:
    app = MavApp(ListSource(make_steps(3), make_info()), AppOptions())
    async with app.run_test(size=HOME) as pilot:
        app.controllers.model.ask()
        await pilot.pause()
        assert "cannot be changed" in screen_text(app)
