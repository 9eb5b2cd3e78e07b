"""Rows that a big screen has to spare: they go where something can be drawn in them, and what is drawn there is right."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from drawing import make_view, panel

from everything import whole_steps
from fakes import make_info
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.kinds import for_view, kind_of
from openmav.apps.tui.layout import place_all
from openmav.paint import line_text, line_width
from openmav.panels.widgets.rival_parts import LEAST, Rival, rivals_of
from openmav.plugins import registry
from openmav.view import View
from openmav.view.layouts import COMPARE, LAYOUTS

TERMINALS = [(80, 24), (100, 30), (120, 36), (150, 45), (240, 70)]
NORMS = {"mlp_norm": "mlp_norm", "attention_norms": "attention_norm", "residual_norms": "residual_norm"}


def run_of(layers: int, tokens: int = 40) -> View:
    info = make_info(layers, 8)
    return make_view(whole_steps(tokens, info), info)


def places(layout: str, view: View, terminal: tuple[int, int]) -> dict[str, Tile]:
    modules = {name: registry.load("panels", name) for name in {**COMPARE, **LAYOUTS}[layout]}
    kinds = for_view({name: kind_of(name, module) for name, module in modules.items()}, modules, view)
    return {place.name: place for place in place_all(kinds, view.layers, *terminal, None, next(iter(kinds)), False)}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if len(LAYOUTS[name]) > 2])
def test_the_timeline_takes_at_most_two_fifths_of_the_screen_beside_others(layout: str) -> None:
    for layers, terminal in product((6, 30, 80), TERMINALS):
        place = places(layout, run_of(layers, 12), terminal)["timeline"]
        assert place.height <= terminal[1] * 2 / 5, (layers, terminal, place)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_every_neuron_of_the_selected_layer_is_shown_under_few_layers(terminal: tuple[int, int]) -> None:
    view = run_of(6)
    width, height = places("layers", view, terminal)["neurons"].inner
    rows = [line_text(line) for line in panel("neurons").render(view, width, height)]
    numbers = view.values("neurons.ids")[view.layer].tolist()
    assert [number for number in numbers if not any(row.startswith(f"#{number} ") for row in rows)] == []


@pytest.mark.parametrize(("name", "measure"), NORMS.items())
def test_below_the_layers_a_norm_panel_draws_the_selected_layer_token_by_token(name: str, measure: str) -> None:
    view = replace(run_of(6), layer=2)
    for width, height in ((40, 6 + 3), (60, 6 + 12), (51, 6 + 26)):
        rows = [line_text(line) for line in panel(name).render(view, width, height, gutter=False)]
        assert len(rows) == height
        assert rows[6].startswith("layer 2")
        chart = rows[7 : height - (height > 6 + 4)]
        norms = np.array([step.values[measure][2] for step in view.steps])[-width:]
        filled = np.array([sum("▁▂▃▄▅▆▇█".find(row[at : at + 1]) + 1 for row in chart) for at in range(len(norms))])
        assert np.abs(filled - np.maximum(1, norms / norms.max() * 8 * len(chart))).max() <= 0.5 + 1e-6


def test_tokens_without_the_norm_are_gaps_in_its_course() -> None:
    view = run_of(6)
    steps = tuple(replace(step, values={}) if step.index in (4, 5) else step for step in view.steps)
    rows = [line_text(line) for line in panel("mlp_norm").render(replace(view, steps=steps), 60, 6 + 10, gutter=False)]
    lowest = rows[-2]
    assert lowest[4:6] == "  "
    assert " " not in lowest[:4] + lowest[6 : len(steps)]


def test_the_parts_of_the_most_likely_tokens_add_up_to_their_logits() -> None:
    step = run_of(6).steps[-1]
    rivals = rivals_of(step)
    assert [rival.logit for rival in rivals] == step.values["attribution.top.logit"][0].tolist()
    for at, rival in enumerate(rivals):
        whole = [step.values[f"attribution.top.{part}"][0, at] for part in ("embedding", "bias", "rest")]
        assert rival.rest == pytest.approx(float(np.sum(whole)), abs=1e-4)
        assert rival.attention == pytest.approx(float(step.values["attribution.top"][:, 0, at].sum()), abs=1e-5)
        assert rival.mlp == pytest.approx(float(step.values["attribution.top"][:, 1, at].sum()), abs=1e-5)


def test_the_most_likely_tokens_stand_below_the_waterfall_where_there_is_room() -> None:
    view = run_of(6)
    step = view.steps[-1]
    for width, height in ((LEAST + 5, 6 + 4 + 5), (82, 26), (82, 6 + 4 + 4), (LEAST - 1, 26)):
        lines = panel("attribution").render(view, width, height)
        assert len(lines) <= height
        assert max(map(line_width, lines)) <= width
        shown = any("the most likely" in line_text(line) for line in lines)
        assert shown == (height >= 6 + 4 + 5 and width >= LEAST)
    rival: Rival = rivals_of(step)[0]
    row = next(line_text(line) for line in panel("attribution").render(view, 82, 26) if rival.token in line_text(line))
    assert f"{rival.logit:.2f}" in row


def test_a_part_that_is_not_known_leaves_the_most_likely_tokens_out() -> None:
    step = run_of(6).steps[-1]
    parts = step.values["attribution.top"].copy()
    parts[0, 0, 0] = np.nan
    assert rivals_of(replace(step, values={**step.values, "attribution.top": parts})) == ()


@pytest.mark.parametrize("layers", [6, 30, 80])
@pytest.mark.parametrize("terminal", TERMINALS[:4])
def test_a_list_without_end_stands_beside_text_and_layers_as_high_as_both(layers: int, terminal: tuple[int, int]) -> None:
    tiles = places("attention", run_of(layers), terminal)
    beside, text, strip = (tiles[name] for name in ("attention_row", "generated_text", "timeline"))
    assert (beside.y, beside.height) == (0, strip.y)
    assert beside.height == text.height + tiles["attention_map"].height
    listed = [line_text(line) for line in panel("attention_row").render(run_of(layers), *beside.inner)]
    assert sum(" %" in row for row in listed) >= min(16, beside.inner[1] // 3), listed


@pytest.mark.parametrize("terminal", TERMINALS)
def test_the_timeline_grows_only_where_all_candidates_of_two_runs_are_shown(terminal: tuple[int, int]) -> None:
    for layers in (6, 30, 80):
        tiles = places("compare", run_of(layers), terminal)
        above = tiles["compare_candidates"].y == tiles["compare_text"].y  # else they stand beside layers that need the height
        assert not above or tiles["compare_candidates"].inner[1] >= 22 or tiles["timeline"].height <= 5, (layers, terminal)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_all_checks_of_health_are_seen_wherever_several_panels_are(terminal: tuple[int, int]) -> None:
    for layers in (6, 30, 80):
        width, height = places("health", run_of(layers), terminal)["health"].inner
        rows = [line_text(line) for line in panel("health").render(run_of(layers), width, height)]
        assert sum(row.startswith(("✓", "!", "–")) for row in rows) == 5, (layers, terminal, rows)


@pytest.mark.parametrize("name", NORMS)
def test_large_norms_leave_room_for_their_bars_in_a_narrow_panel(name: str) -> None:
    view = run_of(30)
    steps = tuple(replace(step, values={**step.values, NORMS[name]: np.linspace(12.3, 543.2, 30)}) for step in view.steps)
    tiles = places("layers", view, (80, 24))
    rows = [line_text(line) for line in panel(name).render(replace(view, steps=steps), *tiles[name].inner, tiles[name].gutter)]
    assert "543" in rows[0]
    assert "█" in rows[0]
    wide = [line_text(line) for line in panel(name).render(replace(view, steps=steps), 40, 16, gutter=False)]
    assert "543.2" in wide[0]
