"""Signals: both numbers are the Step's, and both rows of columns have one scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_step, make_steps
from openmav.paint.marks import RISING


def test_the_numbers_of_the_token_under_the_cursor() -> None:
    view = make_view(20).at_step(7)
    assert view.step is not None
    entropy, surprisal = draw("uncertainty", view, 60, 2)
    assert float(entropy.split()[-1]) == pytest.approx(view.step.entropy, abs=0.0051)
    assert float(surprisal.split()[-1]) == pytest.approx(view.step.surprisal, abs=0.0051)
    assert f"token 7 {view.step.token.replace(' ', '·')}" in note("uncertainty", view, 80, 2)


def test_columns_of_both_rows_have_one_scale() -> None:
    steps = make_steps(20)
    top = max(value for step in steps for value in (step.entropy, step.surprisal))
    rows = draw("uncertainty", make_view(steps), 60, 2)
    for row, values in zip(rows, ([step.entropy for step in steps], [step.surprisal for step in steps])):
        assert row[10:50:2] == row[11:51:2]  # two characters a token where there is room
        assert [RISING.index(char) for char in row[10:50:2]] == pytest.approx([max(1, value / top * 8) for value in values], abs=0.51)
    row = draw("uncertainty", make_view(steps), 40, 2)[0]  # too narrow for that
    assert [RISING.index(char) for char in row[10:30]] == [RISING.index(char) for char in rows[0][10:50:2]]


def test_means_are_of_what_is_in_sight() -> None:
    view = make_view(200)
    shown = view.steps[200 - (80 - 17) :]
    assert f"mean {sum(s.entropy for s in shown) / len(shown):.2f} and {sum(s.surprisal for s in shown) / len(shown):.2f}" in note(
        "uncertainty", view, 80, 2
    )
    assert "◂ 137–199 of 200 tokens" in note("uncertainty", view, 80, 2)


def test_one_row_holds_both_numbers() -> None:
    view = make_view(5)
    assert view.step is not None
    assert draw("uncertainty", view, 60, 1) == [f"entropy {view.step.entropy:.2f}  surprisal {view.step.surprisal:.2f}"]


def test_what_is_not_finite_is_flagged() -> None:
    steps = [*make_steps(3), replace(make_step(3), entropy=float("nan"), logprob=float("-inf"))]
    entropy, surprisal = draw("uncertainty", without_colour(make_view(steps)), 60, 2)
    assert "!" in entropy
    assert entropy.endswith("NaN")
    assert "!" in surprisal
    assert surprisal.endswith("inf")


def test_a_click_goes_to_the_token() -> None:
    view = make_view(20)
    assert [panel("uncertainty").pick(view, 60, 2, 10 + x, 1).cursor for x in (8, 9)] == [4, 4]
    assert panel("uncertainty").pick(view, 40, 2, 10 + 4, 1).cursor == 4
    assert panel("uncertainty").pick(view, 60, 2, 3, 1).cursor == 19
