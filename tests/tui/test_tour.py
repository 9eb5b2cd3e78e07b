"""The guided tour: every stop waits for its key, answers with the source's own numbers, and goes on; it can be left at any time."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from driving import COMPACT, HOME, SMALL, screen_text, shown, until

from everything import WholeSource, whole_steps
from fakes import ScriptedSource, make_info, make_prompt, make_step, with_values
from openmav.apps.tui import keys as table
from openmav.apps.tui.keys import keys_of
from openmav.apps.tui.tour import answers
from openmav.apps.tui.tour.answers import Progress
from openmav.apps.tui.tour.app import TourApp
from openmav.apps.tui.tour.box import TourBox, first_key
from openmav.apps.tui.tour.steps import TOUR_STEPS, TourStep
from openmav.apps.tui.widgets.panel_tile import PanelTile
from openmav.paint import wrap_words
from openmav.panels import needs
from openmav.plugins import registry
from openmav.protocol.commands import Want
from openmav.protocol.snapshot import Snapshot
from openmav.view import View
from openmav.view.options import AppOptions

KEYS = {
    "A token": ["full_stop"],
    "Its candidates": ["down", "down", "enter"],
    "Surprisal": ["space", *["beat"] * 8, "space"],
    "Entropy": ["left", "left"],
    "Low temperature": ["plus"] * 5,
    "High temperature": [*["plus"] * 10, *["full_stop"] * 3],
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
        assert "c skip step" in box(app)
        await pilot.press("z", "z", "full_stop")
        assert app.at == 0
        assert "c next step" in box(app)
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


# ---- what it answers: the numbers of the step -----------------------------------------------------------------------------

INFO = make_info(3, 2)


def view_of(**values: np.ndarray) -> View:
    step = with_values(make_step(0, info=INFO), **values)
    return View().updated(Snapshot(info=INFO, prompt=make_prompt(), steps=(step,)))


def moment(view: View) -> Progress:
    return Progress(View(), view, ())


def test_a_head_is_told_by_its_row() -> None:
    rows = np.zeros((3, 2, 14), np.float32)
    rows[2, 0, 3], rows[2, 0, 5] = 0.75, 0.25
    assert (
        answers.head(moment(view_of(attention_rows=rows.copy())))
        == "Head 0 of layer 2 attends most to “·France”, with 75 % of its attention."
    )
    rows[2, 0, 0] = 0.9
    assert "Many heads attend to the first token" in answers.head(moment(view_of(attention_rows=rows.copy())))
    rows[2] = np.nan
    assert answers.head(moment(view_of(attention_rows=rows.copy()))).startswith("This is head 0 of layer 2.")
    assert answers.head(moment(view_of())).startswith("This is head 0 of layer 2.")


def test_a_layer_is_told_by_its_norms() -> None:
    view = view_of(mlp_norm=np.array([1, 2, 3.04]), attention_norm=np.array([1, 2, 4.0]), residual_norm=np.array([5, 6, 7.0]))
    assert (
        answers.layer(moment(view))
        == "In layer 2 attention added something of size 4.0, the MLP of size 3.0; the sum is then of size 7.0 (the length of a vector)."
    )


def test_the_lens_says_where_the_answer_stays() -> None:
    view = view_of(**{"logit_lens.token_ids": np.array([[1, 2], [3, 1], [3, 2]])})
    assert view.step is not None
    view = replace(view, steps=(replace(view.step, pieces={1: " a", 2: "b", 3: " c"}),))
    said = "Layer 0 predicts “·a”. The model's answer, its most likely token “·c”, is there "
    assert answers.lens(moment(view)) == f"{said}from layer 1 on."
    late = view_of(**{"logit_lens.token_ids": np.array([[1, 2], [2, 1], [3, 2]])})
    assert (
        answers.lens(moment(replace(late, steps=(replace(view.steps[0], values=late.steps[0].values),))))
        == f"{said}only at the last layer."
    )
    assert "takes shape" in answers.lens(moment(view_of()))
    there_and_back = view_of(**{"logit_lens.token_ids": np.array([[3, 2], [1, 3], [3, 2]])})
    said = answers.lens(moment(replace(there_and_back, steps=(replace(view.steps[0], values=there_and_back.steps[0].values),))))
    assert said == "Layer 0 predicts “·c” too, later layers something else; from layer 2 on the prediction is stable."


def test_entropy_is_told_as_a_number_of_equally_likely_tokens() -> None:
    view = view_of()
    assert view.step is not None
    for nats, said in ((0.0, "between 1.0 equally"), (math.log(6), "between 6.0 equally"), (4.0, "between 55 equally")):
        assert said in answers.entropy(moment(replace(view, steps=(replace(view.step, entropy=nats),))))
    assert "NaN" in answers.entropy(moment(replace(view, steps=(replace(view.step, entropy=math.nan),))))


def test_entropy_waits_for_a_sure_and_an_unsure_choice_and_compares_them() -> None:
    steps = tuple(replace(make_step(at, f" w{at}", info=INFO), entropy=nats) for at, nats in enumerate((2.0, 0.1, 3.0, 5.0, 1.0)))
    view = View().updated(Snapshot(info=INFO, prompt=make_prompt(), steps=steps))
    for visited, done in (({4}, False), ({4, 0}, False), ({4, 3, 2}, True), ({2, 0}, False), ({3, 1}, True)):
        progress = Progress(View(), view, (), frozenset(visited))
        assert answers.is_sure_and_unsure(progress) == done, visited
    assert answers.entropy(Progress(View(), view, (), frozenset({1, 2, 3}))) == (
        "“·w1” was the surest choice that you saw: 0.10 nats, as between 1.1 equally likely tokens. “·w3” was the least sure: 5.00"
        " nats, as between 148 equally likely tokens. One long bar is a low entropy, many short ones are a high one."
    )


def test_temperature_counts_tokens_that_were_not_the_most_likely() -> None:
    steps = tuple(make_step(at, info=INFO) for at in range(12))
    others = sum(step.candidates.token_ids[0] != step.token_id for step in steps)
    assert 0 < others < 12
    assert f"{others} of 12 tokens" in answers.high_temperature(moment(View(steps=steps)))


def test_text_is_wrapped_by_cells() -> None:
    assert wrap_words("a bb 日本語 c", 6) == ["a bb", "日本語", "c"]


async def test_the_readers_own_keys_are_named_and_do_it() -> None:
    own = {"next": "c", "quit": "o", "candidate_down": "j", "enter": "l"}
    app = TourApp(ScriptedSource((), make_info(6, 8)), AppOptions(panels=PANELS, keys=own))
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert "Press c to generate one token." in box(app)
        assert "f8 skip step · o quit" in box(app)
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
        assert app.view.sampling.temperature == 0.5
        count = len(app.view.steps)
        await pilot.press(*KEYS["High temperature"][:-1])
        assert app.answer is None
        await pilot.press("full_stop")
        assert app.answer is not None
        assert len(app.view.steps) == count + 3
        await pilot.press("c")
        assert app.view.sampling.temperature == 0, "the steps after it tell what the model takes for most likely"


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
            await pilot.press("plus")
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
