"""A terminal squeezed to nothing while a form, a list or a page is open, and grown again."""

from __future__ import annotations

import pytest
from driving import COMPACT, HOME, make_app


@pytest.mark.parametrize("key", ["g", "p", "a", "w", "e", "question_mark", "ctrl+p"])
async def test_what_is_open_survives(key: str) -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert len(app.screen_stack) == 2
        for size in ((1, 1), (3, 30), COMPACT):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1
