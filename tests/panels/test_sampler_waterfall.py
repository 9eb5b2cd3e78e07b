"""Sampler waterfall: its rows are the Step's stages, made here by the real sampler; the last row says how the token came."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawing import draw, make_view, note

from fakes import make_step, with_values
from openmav.backends.base import Frame
from openmav.generation.sampler import Sampler
from openmav.measures import sampling_stages
from openmav.measures.base import Context
from openmav.record import SAMPLING_STAGES, USUAL_STAGES
from openmav.settings.sampling import Sampling
from openmav.view import View

ALL = Sampling(temperature=0.8, top_k=50, top_p=0.9, min_p=0.05, repetition_penalty=1.1)


def view_of(sampling: Sampling, constrained: bool = False, **changes: object) -> View:
    """A step that was chosen so; a constraint leaves every second token."""
    logits = torch.randn(2000, generator=torch.Generator().manual_seed(1)) * 3
    allowed = torch.arange(2000) % 2 == 0 if constrained else None
    choice = Sampler(sampling).choose(logits, [1, 2], None, allowed)
    context = Context(logits, choice.probs, choice.sampled_probs, choice.top_ids, choice.token_id, stages=choice.stages, sampling=sampling)
    step = with_values(make_step(3), **sampling_stages.compute(Frame(logits), context))
    return make_view([replace(step, **changes)], sampling=sampling)  # type: ignore[arg-type]


def usual(view: View) -> list[np.ndarray]:
    """The rows of the stages that any model has."""
    assert view.step is not None
    return [view.step.values["sampling_stages"][SAMPLING_STAGES.index(name)] for name in USUAL_STAGES]


@pytest.mark.parametrize("width", [80, 44])
def test_survivors_and_what_was_kept(width: int) -> None:
    view = view_of(ALL, constrained=True)
    assert view.step is not None
    rows = draw("sampler_waterfall", view, width, 10)[1:8]
    assert rows[1].split()[:2] == ["constraint", "1,000"]
    assert float(rows[1].split("%")[0].split()[-1]) < 99
    for row, values in zip(rows, usual(view)):
        tokens, kept = re.search(r" ([\d,]+) [█▏▎▍▌▋▊▉░ ]*?([\d.]+) %", row).groups()  # type: ignore[union-attr]
        assert int(tokens.replace(",", "")) == values[1]
        assert float(kept) == pytest.approx(values[2] * 100, abs=0.051)


def test_the_chosen_tokens_probability_after_each_stage() -> None:
    view = view_of(ALL, constrained=True)
    assert view.step is not None
    for row, values in zip(draw("sampler_waterfall", view, 80, 10)[1:8], usual(view)):
        assert float(re.findall(r"([\d.]+) %", row)[-1]) == pytest.approx(values[4] * 100, abs=0.051)


def test_settings_are_those_of_the_token_and_not_of_now() -> None:
    view = replace(view_of(ALL), sampling=Sampling(temperature=0.3))
    text = "\n".join(draw("sampler_waterfall", view, 80, 10))
    for said in ("penalty 1.10", "temperature 0.80", "top-k 50", "top-p 0.90", "min-p 0.05"):
        assert said in text


def test_a_stage_that_is_off_says_so() -> None:
    rows = draw("sampler_waterfall", view_of(Sampling(temperature=1.0, top_k=5)), 80, 10)
    assert [USUAL_STAGES[at] for at, row in enumerate(rows[1:8]) if row.endswith(" off")] == [
        "constraint",
        "penalty",
        "temperature",
        "top-p",
        "min-p",
    ]


def test_a_stage_of_the_models_own_stands_in_its_place_where_it_is_on() -> None:
    view = view_of(replace(ALL, stages=(("suppressed", 3.0), ("typical-p", 0.9))))
    assert view.step is not None
    values = {name: value.copy() for name, value in view.step.values.items()}
    values["sampling_stages"][SAMPLING_STAGES.index("suppressed")] = [1, 1997, 0.75, 2.0, 0.1]
    step = with_values(view.step, **values)
    rows = draw("sampler_waterfall", make_view([step], sampling=ALL), 80, 11)[1:9]
    assert [row.split()[0] for row in rows] == ["raw", "constraint", "penalty", "suppressed", "temperature", "top-k", "top-p", "min-p"]
    assert rows[3].split()[1:3] == ["3", "1,997"]
    assert "75.0 %" in rows[3]
    assert "typical-p" not in "".join(rows), "off at this token"


def test_how_the_token_came() -> None:
    drawn = draw("sampler_waterfall", view_of(ALL), 80, 10)[-1]
    assert re.search(r"● \S+ +drawn with p [\d.]+ % of \d+ tokens", drawn)
    assert "greedy: the most likely is taken" in draw("sampler_waterfall", view_of(Sampling()), 80, 10)[-1]
    assert "forced by you, not drawn" in draw("sampler_waterfall", view_of(ALL, forced=True), 80, 10)[-1]


def test_where_not_all_fit_stages_that_are_off_go_first() -> None:
    view = view_of(Sampling(temperature=0.8, top_k=50, top_p=0.9))
    rows = draw("sampler_waterfall", view, 60, 5)
    assert [row.split()[0] for row in rows] == ["raw", "temperature", "top-k", "top-p", "●"]
    assert "3 off" in note("sampler_waterfall", view, 60, 5)
    assert "1 more" in note("sampler_waterfall", view, 60, 4)


def test_nan_shows() -> None:
    view = view_of(ALL)
    assert view.step is not None
    broken = with_values(view.step, sampling_stages=np.full((len(SAMPLING_STAGES), 5), np.nan))
    assert "NaN" in "".join(draw("sampler_waterfall", make_view([broken]), 80, 10))


def test_without_its_measure() -> None:
    assert draw("sampler_waterfall", make_view(1), 60, 9) == ["not captured for this token"]
