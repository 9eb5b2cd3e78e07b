"""The guided tour: every stop waits for its key, answers with the source's own numbers, and goes on; it can be left at any time."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from driving import COMPACT, HOME, SMALL, screen_text, shown, until

from everything import WholeSource, whole_steps
from fakes import ScriptedSource, make_info, make_step
from openmav.apps.tui import keys as table
from openmav.apps.tui.keys import keys_of
from openmav.apps.tui.tour.app import TourApp
from openmav.apps.tui.tour.box import TourBox, first_key
from openmav.apps.tui.tour.steps import TOUR_STEPS, TourStep
from openmav.apps.tui.widgets.panel_tile import PanelTile
from openmav.paint import wrap_words
from openmav.panels import needs
from openmav.plugins import registry
from openmav.protocol.commands import Want
from openmav.view.options import AppOptions

KEYS = {
    "A token": ["full_stop"],
    "Its candidates": ["down", "down", "enter"],
    "Surprisal": ["space", *["beat"] * 8, "space"],
    "Entropy": ["left", "left"],
    "Low temperature": ["minus"] * 5,
    "High temperature": [*["plus"] * 5, *["full_stop"] * 3],
    "Attention": ["right_curly_bracket"],
    "Layers": ["left_square_bracket"] * 3,
    "The logit lens": ["full_stop"],
    "Explore": ["1"],
}

PANELS = TOUR_STEPS[0].panels


def tour(layers: int = 6, **changes: object) -> TourApp:
    return TourApp(ScriptedSource((), make_info(layers, 8), **changes), AppOptions(panels=PANELS))  # type: ignore[arg-type]


def said(stop: TourStep, **own: str) -> tuple[str, str]:
    """What a stop tells and asks, with the keys of its bindings."""
    names = {name: first_key(keys) for name, keys in keys_of(own).items()}
    return stop.text.format_map(names), stop.ask.format_map(names)


def box(app: TourApp) -> str:
    """What the tour says, as one line without its frame."""
    text = screen_text(app)
    return re.sub(r"[│╭╮╰╯─\s]+", " ", text[text.index("Tour ") :])


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [COMPACT, HOME, SMALL])
async def test_the_whole_tour(size: tuple[int, int]) -> None:
    app = tour()
    async with app.run_test(size=size) as pilot:
        assert app.source.sent == [Want(needs(panel for stop in TOUR_STEPS for panel in stop.panels))]  # type: ignore[attr-defined]
        for at, stop in enumerate(TOUR_STEPS):
            await pilot.pause()
            assert f"Tour {at + 1} of {len(TOUR_STEPS)}: {stop.title}" in box(app)
            assert all(part in box(app) for part in said(stop)), "nothing that the box says is cut"
            assert set(shown(app)) == (set(stop.panels) if size != SMALL else {stop.focus})
            assert app.answer is None
            lowest = max(tile.region.bottom for tile in app.query(PanelTile) if tile.display)
            assert lowest == app.query_one(TourBox).region.y, "the box covers no edge of a panel, and leaves no row unused"
            for key in KEYS[stop.title]:
                assert app.answer is None, f"{stop.title} waits for all of its keys"
                if key == "beat":
                    app.source.beat()  # type: ignore[attr-defined]
                    app.tick()
                else:
                    await pilot.press(key)
            await until(lambda: app.answer is not None)
            await pilot.pause()
            assert app.answer is not None
            assert app.answer in box(app)
            assert stop.ask not in box(app)
            await pilot.press("c")
        assert app.at == len(TOUR_STEPS) - 1


@pytest.mark.asyncio
async def test_going_back_and_skipping() -> None:
    app = tour()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("z", "c", "c")
        assert (app.at, app.answer) == (2, None)
        assert "c skip to step 4 · z back to step 2" in box(app)
        await pilot.press("z", "z", "full_stop")
        assert app.at == 0
        assert "c on to step 2" in box(app)
        step = app.view.steps[-1]
        assert (
            app.answer
            == f"The model generated “·{step.token.strip()}” (the · is a space), highlighted in the text, with a probability of "
            + (f"{100 * math.exp(step.logprob):.1f} %. All that follows is about such choices.")
        )


@pytest.mark.asyncio
async def test_an_answer_stays_when_tokens_are_undone() -> None:
    app = tour()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("c", "c", "space")
        for _ in range(9):
            app.source.beat()  # type: ignore[attr-defined]
        await pilot.press("space")
        answer = app.answer
        assert answer is not None
        assert "9 new tokens" in answer
        await pilot.press("b")
        answer = app.answer
        assert answer is not None
        assert "8 new tokens" in answer
        await pilot.press(*["b"] * 8)
        assert app.answer == answer


@pytest.mark.asyncio
@pytest.mark.parametrize("stops", [0, 4, 8])
async def test_it_can_be_left_at_any_time(stops: int) -> None:
    app = tour()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(*["c"] * stops, "escape")
        await pilot.pause()
        assert app.is_running, "escape does here what it does elsewhere"
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running


@pytest.mark.asyncio
async def test_help_opens_over_it_and_escape_closes_only_the_help() -> None:
    app = tour()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("question_mark", "escape", "full_stop")
        assert app.is_running
        assert app.answer is not None


@pytest.mark.asyncio
async def test_while_the_model_loads_it_says_so() -> None:
    app = tour(status="loading")
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        assert "The model is still loading" in box(app)


def test_text_is_wrapped_by_cells() -> None:
    assert wrap_words("a bb 日本語 c", 6) == ["a bb", "日本語", "c"]


async def test_the_readers_own_keys_are_named_and_do_it() -> None:
    own = {"next": "c", "quit": "o", "candidate_down": "j", "enter": "l"}
    app = TourApp(ScriptedSource((), make_info(6, 8)), AppOptions(panels=PANELS, keys=own))
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "Press c to generate one token." in box(app)
        assert "f8 skip to step 2 · o quit" in box(app)
        await pilot.press("c")
        app.tick()
        await pilot.pause()
        assert app.answer is not None
        assert app.at == 0, "the tour's own key gave way"
        await pilot.press("f8")
        await pilot.pause()
        assert "Press j a few times to select another one, then l." in box(app)
        await pilot.press("j", "j", "l")
        app.tick()
        assert app.answer is not None
        await pilot.press("z")
        await pilot.pause()
        assert app.at == 0


async def test_the_last_stop_names_mavs_own_keys_where_there_are_no_others() -> None:
    app = tour()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press(*"c" * (len(TOUR_STEPS) - 1))
        await pilot.pause()
        assert "The keys 1 to 9 switch layouts, ? explains the focused panel (tab: next panel)" in box(app)


async def test_a_step_that_was_skipped_to_has_tokens_to_show_and_still_asks_for_its_own() -> None:
    for at, stop in enumerate(TOUR_STEPS):
        app = tour()
        async with app.run_test(size=COMPACT) as pilot:
            await pilot.press(*"c" * at)
            await until(lambda: app._supplied)  # noqa: B023
            assert len(app.view.steps) == max(one.tokens for one in TOUR_STEPS[: at + 1])
            assert app.answer is None, stop.title
            if stop.title == "The logit lens":
                assert "◆" in screen_text(app)
                await pilot.press("full_stop")
                assert app.answer is not None


class MostlySure(ScriptedSource):
    """Undecided at every fifth token only: there the first candidate has half of the probability."""

    def _append(self, **changes: object) -> None:
        made = make_step(len(self.steps), None, self.info).candidates
        first = 0.5 if len(self.steps) % 5 == 4 else 0.9
        probs = np.array([first, *[(1 - first) / len(made)] * (len(made) - 1)], dtype=np.float32)
        super()._append(**{"candidates": replace(made, probs=probs), **changes})


async def test_temperature_begins_at_a_choice_that_is_open() -> None:
    app = TourApp(MostlySure((), make_info(6, 8)), AppOptions(panels=PANELS))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(*"c" * [stop.title for stop in TOUR_STEPS].index("Low temperature"))
        await until(lambda: app._supplied)
        assert [float(step.candidates.probs[0]) for step in app.view.steps[-2:]] == pytest.approx([0.9, 0.5])
        await pilot.pause()
        more = len(app.view.steps) - app._arrived
        assert more > 0
        assert f"(For this the model has generated {more} more tokens.)" in box(app)
        await pilot.press(*KEYS["Low temperature"])
        await until(lambda: app.answer is not None)
        assert app.answer is not None
        assert "The model gives “·" in app.answer
        assert "50.0 %; at temperature 0.5 it is drawn" in app.answer
        await pilot.press("c")
        await until(lambda: app._supplied)
        assert app.view.sampling.temperature == 1.0, "it can go either way from there"
        count = len(app.view.steps)
        await pilot.press(*KEYS["High temperature"][:-1])
        assert app.answer is None
        await pilot.press("full_stop")
        assert app.answer is not None
        assert len(app.view.steps) == count + 3
        await pilot.press("c")
        assert app.view.sampling.temperature == 0, "the steps after it tell what the model takes for most likely"


async def test_a_step_begins_at_the_highest_layer_and_the_first_head() -> None:
    app = tour()
    async with app.run_test(size=COMPACT) as pilot:
        for stop in TOUR_STEPS[:-1]:
            assert (app.view.layer, app.view.head, app.view.scroll) == (5, 0, 0), stop.title
            await pilot.press("left_square_bracket", "left_square_bracket", "right_curly_bracket", "c")


async def test_a_panel_that_was_closed_is_missed_and_comes_back() -> None:
    app = tour()
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("full_stop", "c", "x")
        await pilot.pause()
        assert "A panel of this step is closed: u brings it back." in box(app)
        await pilot.press("u")
        await pilot.pause()
        assert "is closed" not in box(app)
        assert {*TOUR_STEPS[1].panels} <= {*shown(app)}


async def test_it_can_be_gone_on_with_at_any_step() -> None:
    for at, stop in enumerate(TOUR_STEPS):
        app = TourApp(ScriptedSource((), make_info(6, 8)), AppOptions(panels=stop.panels), at)
        async with app.run_test(size=HOME) as pilot:
            await until(lambda: app._supplied)  # noqa: B023
            await pilot.pause()
            assert f"Tour {at + 1} of {len(TOUR_STEPS)}: {stop.title}" in box(app)
            assert len(app.view.steps) >= stop.tokens
            assert app.panels.focused == stop.focus
        last = at in (0, len(TOUR_STEPS) - 1)
        assert app.farewell == ("" if last else f"mav: you were at step {at + 1} of 10; mav tour --step {at + 1} goes on there")


@pytest.mark.parametrize("size", [COMPACT, HOME])
async def test_each_step_changes_the_panels_not_only_its_own_text(size: tuple[int, int]) -> None:
    """What stands in the panels before the keys of a step and after them differs, beside what a step before has changed already."""
    app = tour()
    async with app.run_test(size=size) as pilot:
        for stop in TOUR_STEPS:
            await pilot.pause()
            before = [app.query_one(f"#panel-{name}", PanelTile)._strips for name in stop.panels]
            for key in KEYS[stop.title]:
                if key == "beat":
                    app.source.beat()  # type: ignore[attr-defined]
                    app.tick()
                else:
                    await pilot.press(key)
            await pilot.pause()
            after = [app.query_one(f"#panel-{name}", PanelTile)._strips for name in stop.panels]
            assert before != after, stop.title
            await pilot.press("c")


async def test_the_bars_change_with_the_temperature_before_another_token_is_drawn() -> None:
    app = tour()
    async with app.run_test(size=HOME) as pilot:
        for stop in TOUR_STEPS[: [stop.title for stop in TOUR_STEPS].index("Low temperature")]:
            for key in KEYS[stop.title]:
                await pilot.press("full_stop" if key == "beat" else key)
            await pilot.press("c")
        await pilot.pause()
        seen = set()
        for _ in range(8):
            await pilot.press("minus")
            await pilot.pause(0.1)
            seen.add(tuple(line.text for line in app.query_one("#panel-top_predictions", PanelTile)._strips[2:6]))
        assert len(seen) == 8
        assert any("▒" in line for line in next(iter(seen)))


def test_the_tours_keys_do_nothing_in_the_app() -> None:
    taken = {key for row in table.KEYS for key in row.keys.split(",")}
    assert not taken & {key for row in table.TOUR_KEYS for key in row.keys.split(",")}


def test_every_view_that_a_step_asks_for_is_one_of_its_panels() -> None:
    asked = [(stop, name, mode) for stop in TOUR_STEPS for name, mode in stop.modes.items()]
    assert asked
    assert all(name in stop.panels and mode in registry.load("panels", name).MODES for stop, name, mode in asked)


async def test_under_an_answer_of_two_lines_the_lens_still_shows_every_layer_of_the_demo() -> None:
    info = make_info(6, 8)
    app = TourApp(WholeSource(whole_steps(9, info), info), AppOptions(panels=PANELS))
    async with app.run_test(size=(80, 24)) as pilot:
        while TOUR_STEPS[app.at].title != "The logit lens":
            await pilot.press("c")
        app.answer = "word " * 28
        app.redraw()
        await pilot.pause()
        rows = [strip.text for strip in app.query_one("#panel-logit_lens", PanelTile)._strips]
        assert [row.lstrip("│ ▸")[0] for row in rows[1:-1]] == list("543210")
