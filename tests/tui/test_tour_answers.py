"""What the tour says once a step is done: the numbers of the step, in sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fakes import make_info, make_prompt, make_step, with_values
from openmav.apps.tui.tour import answers
from openmav.apps.tui.tour.answers import Progress
from openmav.protocol.snapshot import Snapshot
from openmav.view import View

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
        answers.layer(moment(view)) == "In layer 2 attention added something of size 4.0, the MLP of size 3.0; the sum is then of size 7.0"
        " (lengths of vectors, which do not add up like numbers)."
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
