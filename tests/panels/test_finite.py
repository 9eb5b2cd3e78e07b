"""Which numbers raise the alarm: the model's own NaN and infinity do, what is only not known does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from deep import deep_steps
from drawing import make_view

from everything import whole_step
from fakes import make_info, with_nan, with_values
from openmav.panels.health import bad_places
from openmav.record import Step
from openmav.record.nonfinite import nonfinite
from openmav.view import View

NAN = np.array([np.nan])
HIDDEN = make_info(4, 2, missing={"attribution": {2: "no parts found"}})


def hidden_below() -> Step:
    """Layer 2's parts are not known, so neither are those below it, nor the embedding's."""
    step = deep_steps(1, make_info(4, 2))[0]
    parts, top = step.values["attribution"].copy(), step.values["attribution.top"].copy()
    parts[:3] = top[:3] = np.nan
    gone = {"attribution.embedding": NAN, "attribution.top.embedding": np.full((1, top.shape[-1]), np.nan)}
    return with_values(step, attribution=parts, **{"attribution.top": top}, **gone)


def alarms(step: Step, info: object = HIDDEN) -> tuple[str, ...]:
    view = make_view([step], info)  # type: ignore[arg-type]
    assert bool(bad_places(view)[0]) == bool(view.alarms())
    return view.alarms()


def test_what_an_unknown_layer_hides_is_no_alarm() -> None:
    assert alarms(hidden_below()) == ()


@pytest.mark.parametrize("part", ["attribution.logit", "attribution.rest", "attribution.bias"])
def test_a_sum_that_is_not_a_number_is_one_all_the_same(part: str) -> None:
    assert alarms(with_values(hidden_below(), **{part: NAN})) == (part,)


def test_the_models_own_nan_above_the_unknown_layer_is_one() -> None:
    parts = hidden_below().values["attribution"].copy()
    parts[3, 1] = np.nan
    assert alarms(with_values(hidden_below(), attribution=parts)) == ("attribution",)


def test_the_same_nan_is_one_where_no_layer_hides_it() -> None:
    assert alarms(hidden_below(), make_info(4, 2)) == (
        "attribution",
        "attribution.embedding",
        "attribution.top",
        "attribution.top.embedding",
    )


def test_a_layer_without_one_of_its_parts_hides_nothing() -> None:
    step = deep_steps(1, make_info(4, 2))[0]
    parts = step.values["attribution"].copy()
    parts[2, 1] = parts[0, 0] = np.nan
    assert alarms(with_values(step, attribution=parts)) == ("attribution",)


@pytest.mark.parametrize("measure", ["router", "neurons"])
def test_places_that_hold_nothing_are_no_alarm(measure: str) -> None:
    """A layer that chose fewer experts than another, or has fewer neurons than are asked for."""
    info = make_info(4, 2)
    step = with_nan(whole_step(0, info), measure, 1, -1)
    assert alarms(step, info) == (measure,)
    ids = step.values[f"{measure}.ids"].copy()
    ids[1, -1] = -1
    assert alarms(with_values(step, **{f"{measure}.ids": ids}), info) == ()


def test_without_a_step_there_is_no_alarm() -> None:
    assert View().alarms() == ()


def test_a_head_that_a_layer_does_not_have_is_no_alarm() -> None:
    """Layers of 4, 2 and no heads: their arrays are as wide as the widest."""
    info = replace(make_info(3, 4, missing={"attention_entropy": {2: "state space layer"}}), layer_heads=(4, 2, 0))
    entropy = np.ones((3, 4), dtype=np.float32)
    entropy[1, 2:] = entropy[2] = np.nan
    step = with_values(deep_steps(1, make_info(3, 4))[0], attention_entropy=entropy)
    assert "attention_entropy" not in nonfinite(step, info)
    own = entropy.copy()
    own[1, 1] = np.nan
    assert "attention_entropy" in nonfinite(with_values(step, attention_entropy=own), info)
    assert "attention_entropy" in nonfinite(step, replace(info, layer_heads=()))
