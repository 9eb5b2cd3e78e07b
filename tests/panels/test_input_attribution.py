"""The text tinted by what each token has to do with a prediction, and the strongest of them with numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel, without_colour

from fakes import HOSTILE, make_attribution
from openmav.paint import line_text
from openmav.record.attribution_result import InputAttribution
from openmav.view import View

NAME = "input_attribution"


def result(view: View, **changes: object) -> InputAttribution:
    assert view.prompt is not None
    return make_attribution(view.prompt, view.steps, view.cursor, **changes)


def asked(view: View, **changes: object) -> View:
    return replace(view, attribution=result(view, **changes))


def test_it_says_which_keys_ask() -> None:
    rows = draw(NAME, make_view(4), 80, 10)
    assert any(row.startswith("i: ") for row in rows)
    assert any(row.startswith("I: ") for row in rows)
    narrow = " ".join(draw(NAME, make_view(4), 40, 10))
    assert "the next method" in narrow, "wrapped, not cut"


def test_all_of_the_text_and_the_strongest_tokens_with_their_numbers() -> None:
    view = asked(make_view(6))
    found = view.attribution
    assert found is not None
    rows = draw(NAME, view, 70, 30)
    text = "".join(found.tokens)
    cut = next(at for at, row in enumerate(rows) if not row)
    assert " ".join(" ".join(rows[:cut]).split()) == " ".join(text.split())
    listed = [(int(row.split()[0]), float(re.search(r"[+-]?\d+\.\d\d$", row)[0])) for row in rows[cut + 1 :]]  # type: ignore[index]
    order = np.argsort(-np.abs(found.scores), kind="stable")[: len(listed)]
    assert [at for at, _ in listed] == order.tolist()
    assert [value for _, value in listed] == pytest.approx(found.scores[order], abs=0.0051)


def test_orange_speaks_for_it_and_blue_against_it() -> None:
    view = asked(make_view(3))
    segments = [segment for line in panel(NAME).render(view, 200, 3) for segment in line if segment.style and segment.style.bgcolor]
    first, last = segments[0].style.bgcolor.triplet, segments[-1].style.bgcolor.triplet
    assert first.blue > first.red, "the most negative one comes first"
    assert last.red > last.blue, "the most positive one comes last"


def test_without_colour_it_can_still_be_told() -> None:
    view = without_colour(asked(make_view(3)))
    segments = list(panel(NAME).render(view, 200, 3)[0])
    assert segments[0].style.underline
    assert segments[-1].style.bold
    assert segments[-1].style.reverse


def test_the_sum_stands_beside_what_it_should_be() -> None:
    view = asked(make_view(3))
    found = view.attribution
    assert found is not None
    said = note(NAME, view, 120, 10)
    assert f"sum {found.sum:.2f} of {found.total:.2f}" in said
    assert "off by 0.4 %" in said
    assert "INCOMPLETE" in note(NAME, asked(make_view(3), total=found.sum * 1.2), 120, 10)
    assert "difference 20.00" in note(NAME, asked(make_view(3), total=float("nan"), minus_id=4, minus=" x"), 120, 10)


def test_what_it_was_asked_for_stands_in_the_title() -> None:
    view = asked(make_view(3), minus_id=4, minus=" London")
    assert view.step is not None
    assert f"{view.step.token.replace(' ', '·')} minus ·London" in panel(NAME).heading(view, 100)


def test_a_result_of_another_token_or_text_is_marked() -> None:
    view = asked(make_view(6))
    assert not any("i asks" in row for row in draw(NAME, view, 80, 20))
    assert "of token 5, not of the shown one (2)" in draw(NAME, view.at_step(2), 80, 20)[0]
    found = view.attribution
    assert found is not None
    other = replace(view, attribution=replace(found, token_ids=(9, *found.token_ids[1:])))
    assert "of another text" in draw(NAME, other, 80, 20)[0]


def test_what_should_warn_a_reader_is_said() -> None:
    assert "of the baseline model" in note(NAME, asked(make_view(3), of_baseline=True), 140, 10)
    assert "its logits are off by 20.0 %" in note(NAME, asked(make_view(3), drift=0.2), 140, 10)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (7, 2), (16, 3), (36, 9), (110, 30)])
@pytest.mark.parametrize("spoilt", [False, True])
def test_any_box_and_any_token(size: tuple[int, int], spoilt: bool) -> None:
    view = make_view(30)
    tokens = tuple(HOSTILE[i % len(HOSTILE)] for i in range(len(result(view).tokens)))
    scores = np.full(len(tokens), np.nan if spoilt else 0.0, dtype=np.float32)
    drawn = replace(view, attribution=replace(result(view), tokens=tokens, scores=scores))
    for line in panel(NAME).render(drawn, *size):
        assert "\x1b" not in line_text(line)
    if min(size) > 2:
        draw(NAME, drawn, *size)
