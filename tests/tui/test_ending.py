"""How the app ends: Textual removes the widgets first and stops the timers last."""

from __future__ import annotations

import asyncio

import pytest
from driving import HOME, make_app
from textual.app import App

from openmav.apps.tui.app import MavApp

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("key", ["", "w", "a", "k", "p", "slash", "ctrl+p", "question_mark"])
async def test_timers_that_fire_while_the_widgets_are_removed_find_nothing_to_draw(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    close_all = App._close_all

    async def slowly(self: MavApp) -> None:  # the timers of the app and of the screen in front fire at each step of it
        screen, done = self.screen, asyncio.create_task(close_all(self))
        while not done.done():
            for timer in [*self._timers, *screen._timers]:
                self.source.history.update(notice="something new")  # type: ignore[attr-defined]
                assert timer._callback is not None
                timer._callback()
            await asyncio.sleep(0)
        await done

    monkeypatch.setattr(MavApp, "_close_all", slowly, raising=False)
    app = make_app(3)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press(*([key] if key else []))
        assert len(app.screen_stack) == 1 + bool(key)
