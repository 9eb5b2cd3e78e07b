"""Norm map: each cell and number is the Step's, the cursor's column is marked, kinds switch."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_info, make_step, make_steps, with_nan, with_values
from openmav.paint import line_text

INFO = make_info(6, 2)


@pytest.mark.parametrize(("kind", "measure"), [("MLP", "mlp_norm"), ("attention", "attention_norm"), ("residual", "residual_norm")])
def test_the_numbers_are_those_of_the_token_under_the_cursor(kind: str, measure: str) -> None:
    view = replace(make_view(make_steps(9, INFO), INFO), modes={"norm_map": kind}).at_step(4)
    assert view.step is not None
    for row in draw("norm_map", without_colour(view), 60, 6):
        layer, number = re.match(r"[▸ ]*(\d+) +([\d.]+) ", row).groups()  # type: ignore[union-attr]
        assert float(number) == pytest.approx(view.step.values[measure][int(layer)], abs=0.051)


def test_cells_without_colour_follow_the_values() -> None:
    info = make_info(1, 1)
    steps = [with_values(step, mlp_norm=np.array([value])) for step, value in zip(make_steps(5, info), (0.0, 0.5, 3.0, 20.0, 100.0))]
    for width, each in ((60, 4), (28, 3), (22, 2)):  # as wide as all have room for
        row = draw("norm_map", without_colour(make_view(steps, info)), width, 1)[0]
        assert "".join(shade * each for shade in " ░▒▓█") in row.replace("◆", "█")


def test_the_ramp_says_its_range() -> None:
    view = make_view(make_steps(9, INFO), INFO)
    top = max(float(step.values["mlp_norm"].max()) for step in view.steps)
    low = min(float(step.values["mlp_norm"].min()) for step in view.steps)
    said = line_text(panel("norm_map").legend(view, 60)).split()
    assert (said[0], said[-2], said[-1]) == (f"{low:.1f}", f"{top:.1f}", "log")


def test_a_long_text_scrolls_and_says_so() -> None:
    view = make_view(make_steps(200, INFO), INFO)
    assert "◂ 176–199 of 200 tokens" in note("norm_map", view, 60, 6)
    assert "176–199" not in note("norm_map", view.at_step(3), 60, 6)


def test_a_cursor_that_went_back_is_marked_in_every_layer() -> None:
    view = make_view(make_steps(9, INFO), INFO)
    rows = panel("norm_map").render(view.at_step(4), 60, 6)
    marks = [[segment.text.strip() for segment in line if segment.text.strip() in ("◆", "·")] for line in rows]
    assert marks == [["◆"], *[["·"]] * 5], "the selected layer's is the strong one"
    colourless = draw("norm_map", without_colour(view.at_step(4)), 60, 6)
    assert [[sign for sign in "◆·" if sign in row] for row in colourless] == marks, "without colour too"
    newest = [line_text(line) for line in panel("norm_map").render(view, 60, 6)]
    assert ["◆" in row for row in newest] == [True, False, False, False, False, False]


def test_a_click_goes_to_the_layer_and_the_token() -> None:
    view = make_view(make_steps(9, INFO), INFO)
    line = panel("norm_map").render(view, 60, 6)[0]
    marked = sum(len(segment.text) for segment in line[: next(i for i, segment in enumerate(line) if "◆" in segment.text)])
    picked = panel("norm_map").pick(view, 60, 6, marked - 4 * 5, 2)
    assert (picked.layer, picked.cursor) == (3, 3)
    assert panel("norm_map").pick(view, 60, 6, 1, 2).cursor == view.cursor


def test_none_and_nan_are_told_apart() -> None:
    info = make_info(3, 1, missing={"mlp_norm": {1: "no MLP"}})
    steps = [*make_steps(2, info), with_nan(make_step(2, info=info), "mlp_norm", 2)]
    rows = draw("norm_map", make_view(steps, info), 60, 3)
    assert "!!" in rows[0]
    assert rows[0].split()[1] == "NaN"
    assert "······" in rows[1]
    assert rows[1].split()[1] == "none"
    assert "!" not in rows[1]


def test_tokens_that_were_made_before_are_empty() -> None:
    first, *rest = make_steps(3, INFO)
    row = draw("norm_map", without_colour(make_view([replace(first, values={}), *rest], INFO)), 60, 6)[0]
    assert re.search(r"^▸5 +[\d.]+ ····[^·]{8} *$", row)
