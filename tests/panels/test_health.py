"""Health: each check against a run that is fine and one that is not, with the number that it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel

from fakes import make_info, make_step, make_steps, with_nan, with_values
from openmav.panels import health
from openmav.record import Step
from openmav.view import View

INFO = make_info(6, 4)


def steps_of(count: int = 20, sink: float = 0.5, ids: Sequence[int] | None = None) -> list[Step]:
    made = [with_values(step, sink_share=np.full((6, 4), sink)) for step in make_steps(count, INFO)]
    return [replace(step, token_id=ids[step.index % len(ids)]) for step in made] if ids else made


def row(view: View, name: str, width: int = 110) -> str:
    return next(line for line in draw("health", view, width, 10) if name in line)


def test_a_run_that_is_fine() -> None:
    view = make_view(steps_of(), INFO)
    rows = draw("health", view, 110, 5)
    assert [line[0] for line in rows] == ["✓"] * 5
    assert "all checks passed" in note("health", view)


def test_what_is_not_known_has_not_passed() -> None:
    view = make_view(steps_of(3), INFO)
    said = note("health", view)
    assert "1 not known" in said
    assert "passed" not in said


def test_below_the_checks_each_layer_says_what_it_adds_and_how_much_looks_at_the_first_token() -> None:
    shares = np.linspace(0.1, 0.9, 24).reshape(6, 4)
    step = with_values(make_step(0, info=INFO), sink_share=shares)
    view = make_view([step], INFO)
    rows = draw("health", view, 90, 10 + 2 + 6)
    assert rows[11].split()[0] == "layer"
    for layer, said in zip(reversed(range(6)), rows[12:]):
        norms = [float(step.values[name][layer]) for name in ("mlp_norm", "attention_norm", "residual_norm")]
        numbers = [float(word) for word in said.replace("%", " ").split() if word[0].isdigit()]
        assert numbers[0] == layer
        assert numbers[1] == pytest.approx(100 * max(norms[:2]) / norms[2], abs=0.051)
        assert numbers[2] == pytest.approx(100 * shares[layer].mean(), abs=0.051)
    brief = draw("health", view, 90, 10 + 2 + 5)
    assert len(brief) == 10 + 3, "no row for each layer"
    means = shares.mean(axis=1)
    assert brief[12].strip() == f"looks at the first token: {means[0]:.1%} in layer 0 to {means[5]:.1%} in layer 5".replace("%", " %")
    assert len(draw("health", view, 90, 10 + 2)) == 10, "nor for the least and the most"


def test_the_number_of_a_sink_is_the_mean_share() -> None:
    shares = np.linspace(0.1, 0.9, 24).reshape(6, 4)
    view = make_view([with_values(make_step(0, info=INFO), sink_share=shares)], INFO)
    said = row(view, "sink")
    assert f"{shares.mean():.2f}" in said
    assert "most in layer 5" in said
    collapsed = row(make_view(steps_of(3, sink=0.95), INFO), "sink")
    assert collapsed.startswith("!")
    assert "0.95" in collapsed
    assert "limit 0.90" in collapsed


def test_a_layer_that_adds_nothing_for_eight_tokens_is_dead() -> None:
    def quiet(step: Step) -> Step:
        mlp, attention = step.values["mlp_norm"].copy(), step.values["attention_norm"].copy()
        mlp[4], attention[4] = 0.005 * step.values["residual_norm"][4], 0.001
        return with_values(step, mlp_norm=mlp, attention_norm=attention)

    steps = steps_of(12)
    view = make_view([*steps[:4], *map(quiet, steps[4:])], INFO)
    said = row(view, "dead")
    assert said.startswith("!")
    assert said.split()[3] == "1"
    assert "layer 4" in said
    assert row(make_view([*steps[:5], *map(quiet, steps[5:])], INFO), "dead").startswith("✓")
    assert row(view.at_step(3), "dead").startswith("–")


def test_a_layer_without_parts_is_not_dead() -> None:
    info = make_info(6, 4, missing={"mlp_norm": {2: "no MLP"}, "attention_norm": {2: "no attention"}})
    steps = [with_values(step, sink_share=np.full((6, 4), 0.5)) for step in make_steps(10, info)]
    assert row(make_view(steps, info), "dead").startswith("✓")


def test_where_a_number_is_not_finite() -> None:
    steps = steps_of(3)
    said = row(make_view([*steps[:2], with_nan(steps[2], "residual_norm", 3)], INFO), "not finite")
    assert said.startswith("!")
    assert said.split()[3] == "1"
    assert "residual_norm layer 3" in said
    logits = replace(steps[2], entropy=float("nan"))
    assert "logits" in row(make_view([*steps[:2], logits], INFO), "not finite")


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], (1, 0)),
        ([9, 1, 2, 3, 1, 2, 3, 1, 2, 3], (3, 3)),
        ([1, 2, 3, 3, 3], (1, 0)),  # too few tokens
        ([5] * 9, (9, 1)),
        ([1, 2, 3, 4] * 2, (2, 4)),
        ([], (1, 0)),
    ],
)
def test_loops(ids: list[int], found: tuple[int, int]) -> None:
    assert health.loop_at_end(ids) == found


def test_a_loop_is_said_with_its_tokens() -> None:
    said = row(make_view(steps_of(21, ids=[7, 8, 9]), INFO), "loop")
    assert said.startswith("!")
    assert "7×" in said
    assert "·picture" not in said
    tokens = "".join(step.token.replace(" ", "·") for step in steps_of(21)[-3:])
    assert tokens in said


def test_repeated_ngrams_by_counting() -> None:
    ids = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
    grams = [tuple(ids[at : at + 4]) for at in range(8)]
    assert health.repeated_share(ids) == pytest.approx(1 - len(set(grams)) / 8)
    assert health.repeated_share([1, 2]) == 0


def test_without_its_measures_a_check_is_not_known() -> None:
    view = make_view([replace(step, values={}) for step in make_steps(9, INFO)], INFO)
    assert [line[0] for line in draw("health", view, 110, 5)] == ["✓", "–", "–", "✓", "✓"]


def test_where_not_all_fit_what_is_wrong_comes_first() -> None:
    view = make_view(steps_of(21, sink=0.99, ids=[7, 8, 9]), INFO)
    rows = draw("health", view, 40, 3)
    assert [line[0] for line in rows] == ["!", "!", "!"]
    assert "2 more" in note("health", view, 40, 3)
    assert "3 of 5 checks failed" in note("health", view, 40, 3)


def test_the_limits_stand_in_the_help() -> None:
    for number in (f"{health.SINK:.2f}", f"{100 * health.DEAD:.0f} %", f"limit {health.LOOP}", f"{health.REPEATED:.2f}"):
        assert number in panel("health").HELP


def test_the_alarm_is_the_worst_check_that_failed() -> None:
    assert health.alarm(make_view(steps_of(), INFO)) == ""
    assert health.alarm(make_view([], INFO)) == ""
    assert health.alarm(make_view(steps_of(3, sink=0.95), INFO)) == "! sink 0.95"
    looping = steps_of(21, sink=0.99, ids=[7, 8, 9])
    assert health.alarm(make_view(looping, INFO)) == "! sink 0.99 and 2 more"
    assert health.alarm(make_view([with_values(step, sink_share=np.full((6, 4), 0.5)) for step in looping], INFO)) == "! loop 7× and 1 more"
    broken = with_values(looping[-1], mlp_norm=np.array([1, 2, np.nan, 4, 5, 6]))
    assert health.alarm(make_view([*looping[:-1], broken], INFO)) == "! NaN or inf in mlp_norm and 3 more"


def test_every_check_has_its_place_among_the_worst() -> None:
    assert sorted(check.__name__ for check in health.WORST_FIRST) == sorted(check.__name__ for check in health.CHECKS)
