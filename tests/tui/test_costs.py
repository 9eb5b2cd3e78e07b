"""What the app tells of itself, and what it asks for the selected layer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from driving import HOME, make_app
from textual.pilot import Pilot

from fakes import make_steps
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.performance import SMOOTH, Performance
from openmav.engine import EngineSource
from openmav.protocol.commands import Want
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings
from openmav.view import View
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Waits until it holds; a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await pilot.pause(0.05)


def wants(app: MavApp) -> list[Want]:
    return [command for command in app.source.sent if isinstance(command, Want)]  # type: ignore[attr-defined]


async def test_a_panel_of_the_selected_layer_asks_for_it() -> None:
    app = make_app(5, options=AppOptions(panels=("neurons", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert wants(app)[-1] == Want(frozenset({"neurons", "neuron_tokens"}), 27)
        assert [want.layer for want in wants(app)] == [-1, 29, 28, 27]


async def test_others_ask_for_no_layer_and_only_once() -> None:
    app = make_app(5, options=AppOptions(panels=("mlp_norm", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left_square_bracket", "left", "right")
        assert wants(app) == [Want(frozenset({"mlp_norm"}))]


LIST, CARD = ("mlp_norm", "top_predictions"), LAYOUTS["focus"]


@pytest.mark.parametrize(
    ("panels", "size", "asked"), [(LIST, (80, 24), 0), (LIST, HOME, 40), (CARD, (80, 24), 0), (CARD, HOME, 0), (CARD, (240, 70), 40)]
)
async def test_a_tall_list_asks_for_as_many_candidates_as_fill_it(panels: tuple[str, ...], size: tuple[int, int], asked: int) -> None:
    app = make_app(5, options=AppOptions(panels=panels))
    async with app.run_test(size=size):
        assert wants(app)[-1].candidates == asked


async def test_an_earlier_token_that_lacks_something_is_asked_for() -> None:
    app = make_app(5, options=AppOptions(panels=("logit_lens", "timeline")))
    lens = frozenset({"logit_lens"})
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "left", "end")
        assert wants(app) == [Want(lens), Want(lens, None, 3), Want(lens, None, 2), Want(lens)]


async def test_what_another_layout_needs_of_earlier_tokens_comes_and_the_selection_stays() -> None:
    source = EngineSource(Settings(model="toy?endless=1", backend="toy", prompt="abc", max_new_tokens=12, measures=("mlp_norm",)))
    try:
        app = MavApp(source, AppOptions(panels=LAYOUTS["minimal"]))
        async with app.run_test(size=HOME) as pilot:
            await until(pilot, lambda: app.view.status == "ended")
            await pilot.press("3", "left", "left", "down", "down")
            await until(pilot, lambda: all("logit_lens" in step.values for step in app.view.steps))
            assert (app.view.cursor, app.view.candidate) == (9, 2)
            assert "not captured" not in str(app.export_screenshot())
    finally:
        source.close()


def test_a_selected_candidate_stays_when_more_is_found_out_about_its_token() -> None:
    steps = make_steps(3)
    view = View().updated(Snapshot(version=1, steps=steps)).at_step(1).at_candidate(2)
    more = [steps[0], replace(steps[1], values={}), steps[2]]
    assert view.updated(Snapshot(version=2, steps=more)).candidate == 2
    other = [steps[0], replace(steps[1], token_id=steps[1].token_id + 1), steps[2]]
    assert view.updated(Snapshot(version=2, steps=other)).candidate is None


async def test_the_screen_knows_what_it_costs() -> None:
    app = make_app(5, options=AppOptions(panels=("accounting", "timeline")))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "right")
        assert app.view.draw_seconds is not None
        assert 0 < app.view.draw_seconds < 5
        assert app.view.memory["app"] > 10_000_000
        assert "engine" not in app.view.memory


def test_the_time_of_a_frame_is_a_running_mean() -> None:
    costs = Performance(lambda: None)
    view = costs.updated(View(steps=make_steps(1)), 0.010)
    assert view.draw_seconds == pytest.approx(0.010)
    assert costs.updated(view, 0.020).draw_seconds == pytest.approx(0.010 + SMOOTH * 0.010)


def test_the_engine_is_looked_at_by_its_process_id() -> None:
    view = Performance(os.getpid).updated(View(), 0.01)
    assert view.memory["engine"] == pytest.approx(view.memory["app"], rel=0.2)
    assert "engine" not in Performance(lambda: 2**22 + 1).updated(View(), 0.01).memory


async def test_the_candidates_alone_on_the_screen_ask_for_more_of_them() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert wants(app)[-1].candidates == 0
        await pilot.press("tab", "m")
        assert app.panels.focused == "top_predictions"
        assert wants(app)[-1].candidates == 200
        await pilot.press("left")
        assert (wants(app)[-1].candidates, wants(app)[-1].at) == (200, app.view.cursor)
        await pilot.press("m")
        assert wants(app)[-1].candidates == 0
