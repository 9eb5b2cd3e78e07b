"""What the app tells of itself, and what it asks for the selected layer."""

from __future__ import annotations

import os

import pytest
from driving import HOME, make_app

from fakes import make_steps
from openmav.apps.options import AppOptions
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.costs import SMOOTH, Costs
from openmav.panels._view import View
from openmav.source import Want


def wants(app: MavApp) -> list[Want]:
    return [command for command in app.source.sent if isinstance(command, Want)]  # type: ignore[attr-defined]


async def test_a_panel_of_the_selected_layer_asks_for_it() -> None:
    app = make_app(5, options=AppOptions(panels=("neurons", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert wants(app)[-1] == Want(frozenset({"neurons", "neuron_tokens"}), 27)
        assert [want.layer for want in wants(app)] == [-1, 29, 28, 27]


async def test_others_ask_for_no_layer_and_only_once() -> None:
    app = make_app(5, options=AppOptions(panels=("mlp_activations", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left_square_bracket", "left", "right")
        assert wants(app) == [Want(frozenset({"mlp_norm"}))]


async def test_the_screen_knows_what_it_costs() -> None:
    app = make_app(5, options=AppOptions(panels=("accounting", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "right")
        assert app.view.draw_seconds is not None
        assert 0 < app.view.draw_seconds < 5
        assert app.view.memory["app"] > 10_000_000
        assert "engine" not in app.view.memory


def test_the_time_of_a_frame_is_a_running_mean() -> None:
    costs = Costs(None)
    view = costs.noted(View(steps=make_steps(1)), 0.010)
    assert view.draw_seconds == pytest.approx(0.010)
    assert costs.noted(view, 0.020).draw_seconds == pytest.approx(0.010 + SMOOTH * 0.010)


def test_the_engine_is_looked_at_by_its_process_id() -> None:
    view = Costs(os.getpid()).noted(View(), 0.01)
    assert view.memory["engine"] == pytest.approx(view.memory["app"], rel=0.2)
    assert "engine" not in Costs(2**22 + 1).noted(View(), 0.01).memory
