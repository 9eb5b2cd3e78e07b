"""The map of a sweep, drawn from made-up effects."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from fakes import HOSTILE, make_info, make_prompt
from openmav.apps.text.sweep_map import draw, height_around
from openmav.apps.text.sweep_table import CsvTable, JsonTable
from openmav.paint import PALETTES, line_text, line_width
from openmav.record.sweep import Effect, Plan, Reading, Token
from openmav.settings.interventions import Intervention

BEFORE = Reading(17.0, 0.75, math.log(0.75))


def make(layers: int = 6, heads: int = 8, what: str = "heads", missing: int = 0, text: str = " Paris") -> tuple[Plan, list[Effect]]:
    """A plan, and all its effects: layer 1 head 2 speaks for the target most."""
    heads = heads if what == "heads" else 1
    site = {"heads": "head", "layers": "layer"}.get(what, what)
    every = [Intervention("ablate", at, site, head if what == "heads" else None) for at in range(layers) for head in range(heads)]
    plan = Plan(
        info=make_info(layers, heads),
        prompt=make_prompt(),
        what=what,
        how="zero",
        target=Token(7, text),
        minus=None,
        before=BEFORE,
        sites=tuple(every[missing:]),
        missing=dict.fromkeys(every[:missing], "state space layer"),
    )
    rng = np.random.default_rng(1)
    changes = {one: -3.5 if (one.layer, one.index or 0) == (1, 2 % heads) else float(rng.uniform(-0.9, 0.9)) for one in plan.sites}
    return plan, [Effect(one, BEFORE, Reading(17 + change, 0.5, math.log(0.5))) for one, change in changes.items()]


def text(plan: Plan, effects: list[Effect], width: int = 100, palette: str = "dark", **options: object) -> list[str]:
    lines = draw(plan, effects, width, PALETTES[palette], **options)
    assert {line_width(line) for line in lines} == {width}
    return [line_text(line) for line in lines]


def test_the_highest_layer_is_on_top_and_the_strongest_is_named() -> None:
    plan, effects = make()
    lines = text(plan, effects)
    rows = [line for line in lines if line[2:5].strip().isdigit()]
    assert [int(line[2:5]) for line in rows] == [5, 4, 3, 2, 1, 0]
    assert rows[4].split()[4] == "-3.50"
    named = next(line for line in lines if "logits  p" in line)
    assert named.split()[1:4] == ["L1.H2", "-3.50", "logits"]
    assert "75.0 % →  50.0 %" in named
    assert "-0.41" in named
    assert "48 of 48" in lines[-1]
    assert "·Paris  logit 17.00, p 75.0 %" in lines[2]


def test_what_is_not_done_yet_is_empty_and_nothing_jumps() -> None:
    plan, effects = make()
    assert {len(text(plan, effects[:count])) for count in (0, 1, 3, 20, 48)} == {height_around(plan) + 6}
    assert "3 of 48" in text(plan, effects[:3])[-1]
    assert "interrupted" not in text(plan, effects[:3])[-1]
    assert "3 of 48, interrupted" in text(plan, effects[:3], ended=True)[-1]


def test_where_not_all_layers_fit_those_at_work_are_shown() -> None:
    plan, effects = make(layers=30, heads=4)
    for done in (0, 1, 40, 119):
        lines = text(plan, effects[:done], rows=9)
        shown = [int(line[2:5]) for line in lines if line[2:5].strip().isdigit()]
        assert len(shown) == 9
        assert done == 0 or effects[done - 1].layer in shown
        assert f"layers {shown[-1]}–{shown[0]} of 30" in lines[-1]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
@pytest.mark.parametrize("heads", [1, 9, 32, 96])
@pytest.mark.parametrize("palette", ["dark", "light", "mono"])
def test_any_width(width: int, heads: int, palette: str) -> None:
    plan, effects = make(layers=4, heads=heads)
    lines = text(plan, effects, width, palette)
    if heads > width:
        assert width < 60 or re.search(r"heads 0–\d+ of 96: widen the terminal", lines[-1])


@pytest.mark.parametrize("what", ["attn", "mlp", "layers"])
def test_a_bar_a_layer(what: str) -> None:
    plan, effects = make(what=what)
    rows = [line for line in text(plan, effects) if line[2:5].strip().isdigit()]
    assert len(rows) == 6
    for row, one in zip(reversed(rows), effects):
        assert float(row.split()[2]) == pytest.approx(one.change, abs=0.006)
        assert ("█│" in row or "▐│" in row or "▕│" in row) == (one.change < 0)


def test_what_is_missing_and_what_is_not_finite_is_said() -> None:
    plan, effects = make(missing=8)
    effects[0] = Effect(effects[0].intervention, BEFORE, Reading(math.nan, math.nan, math.nan))
    lines = text(plan, effects)
    assert "8 not available" in lines[-1]
    assert any("NaN" in line for line in lines)
    for palette in ("dark", "mono"):
        text(plan, effects, palette=palette)


@pytest.mark.parametrize("token", HOSTILE)
def test_a_hostile_target_does_not_leave_its_place(token: str) -> None:
    plan, effects = make(text=token)
    for line in text(plan, effects):
        assert "\n" not in line
        assert "\x1b" not in line


def test_tables_say_null_and_nothing_for_what_is_not_finite() -> None:
    plan, effects = make(layers=1, heads=1)
    bad = Effect(effects[0].intervention, BEFORE, Reading(math.inf, math.nan, math.nan))
    written: list[str] = []
    for table in (JsonTable(written.append), CsvTable(written.append)):
        table.begin(plan)
        table.add(bad)
        table.end("done", 1, 0.5)
    assert '"logit":null,"logit_change":null' in written[1]
    assert written[-1] == "L0.H0,0,0,,,,,,\n"
