"""Any keys in any order: layouts, panels and sizes never leave the screen in a state that cannot be drawn."""

from __future__ import annotations

import asyncio

import pytest
from driving import make_app, screen_text, shown
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmav.view.options import AppOptions

KEYS = [*"1234567xmvn", "less_than_sign", "greater_than_sign", "ctrl+right", "ctrl+left", "ctrl+up", "ctrl+down", "tab", "shift+tab"]
KEYS += ["full_stop", "b", "left", "home", "end", "down", "enter", "plus", "minus", "escape", "left_square_bracket", "right_curly_bracket"]
SIZES = [(20, 5), (60, 16), (80, 24), (160, 45)]


@pytest.mark.storm
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(KEYS) | st.sampled_from(SIZES), min_size=10, max_size=30), st.none() | st.integers(1, 4))
def test_any_keys_and_sizes(events: list[str | tuple[int, int]], grid: int | None) -> None:
    async def storm() -> None:
        app = make_app(4, layers=6, options=AppOptions(grid_rows=grid))
        async with app.run_test(size=(80, 24)) as pilot:
            for event in events:
                await (pilot.press(event) if isinstance(event, str) else pilot.resize_terminal(*event))
            await pilot.pause()
            assert app.panels.focused in app.panels.modules
            assert app.panels.focused in shown(app)
            assert set(shown(app)) <= set(app.panels.modules)
            assert "this panel failed" not in screen_text(app)

    asyncio.run(storm())
