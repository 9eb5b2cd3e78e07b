"""The key that goes through the kinds of what a panel shows."""

from __future__ import annotations

import pytest
from driving import HOME, make_app, screen_text

from openmav.panels import needs
from openmav.protocol.commands import Want
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio


async def test_the_focused_panel_changes_its_kind() -> None:
    app = make_app(options=AppOptions(panels=("generated_text", "attention_map")))
    async with app.run_test(size=HOME) as pilot:
        assert "coloured by surprisal" in screen_text(app)
        await pilot.press("v")
        assert "no attention of layer 29" in screen_text(app)
        await pilot.press("v", "v")
        assert "coloured by entropy" in screen_text(app)
        await pilot.press("tab", "v")
        assert "Attention map · relative entropy" in screen_text(app)
        assert "coloured by entropy" in screen_text(app)
        await pilot.press("v", "v")
        assert "Attention map · entropy" in screen_text(app)


async def test_a_kind_asks_for_what_it_needs_and_lets_go_of_it() -> None:
    app = make_app(options=AppOptions(panels=("generated_text",)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("v", "v", "v")
        wanted = [command.measures for command in app.source.sent if isinstance(command, Want)]  # type: ignore[attr-defined]
        assert wanted == [needs([]), frozenset({"attention_rows"}), needs([])]


async def test_a_panel_with_one_kind_says_so() -> None:
    app = make_app(options=AppOptions(panels=("timeline",)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("v")
        assert "this panel has only one view" in screen_text(app)
