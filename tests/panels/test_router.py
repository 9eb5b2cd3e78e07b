"""Router: experts and weights are the Step's; models without one say so in one line."""

from __future__ import annotations

import re

import pytest
from drawing import draw, make_view, note

from everything import whole_step
from fakes import make_info, make_steps, with_nan

INFO = make_info(6, 4)
NONE = "no mixture of experts in this layer"


def test_experts_and_weights() -> None:
    view = make_view([whole_step(0, INFO)], INFO)
    assert view.step is not None
    for row in draw("router", view, 100, 6):
        layer = int(re.match(r"[▸ ]*(\d+)", row)[1])  # type: ignore[index]
        found = re.findall(r"#(\d+) +([\d.]+)", row)
        assert [int(expert) for expert, _ in found] == view.step.values["router.ids"][layer].tolist()
        assert [float(weight) for _, weight in found] == pytest.approx(view.step.values["router"][layer], abs=0.0051)
    assert "weights sum to 1.00" in note("router", view, 100, 6)


def test_a_narrow_panel_says_how_many_experts_it_shows() -> None:
    view = make_view([whole_step(0, INFO)], INFO)
    assert all(row.count("#") == 2 for row in draw("router", view, 26, 6))
    assert "2 of 4 experts" in note("router", view, 26, 6)


def test_a_model_without_experts() -> None:
    info = make_info(6, 4, missing={"router": dict.fromkeys(range(6), NONE)})
    assert draw("router", make_view(make_steps(1, info=make_info(6, 4)), info), 60, 6) == ["no router in this model"]


def test_a_layer_without_experts_says_none() -> None:
    info = make_info(6, 4, missing={"router": {0: NONE, 1: NONE}})
    rows = draw("router", make_view([whole_step(0, info)], info), 70, 6)
    assert all(NONE in row and row.endswith("none") for row in rows[4:])
    assert all("#" in row for row in rows[:4])


def test_a_weight_that_is_not_a_number() -> None:
    view = make_view([with_nan(whole_step(0, INFO), "router", 5, 0)], INFO)
    assert "NaN" in draw("router", view, 100, 6)[0]
    assert view.alarms() == ("router",)
