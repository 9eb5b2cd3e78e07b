"""What each part adds to a logit, and to the difference of two."""

from __future__ import annotations

import re

import numpy as np
import pytest
from deep import deep_steps
from drawing import draw, note, panel, without_colour
from drawing import make_view as view_with

from fakes import make_info, with_nan, with_values
from openmav.paint import PALETTES, Line, line_text, line_width
from openmav.panels.widgets.diverging import diverging_bar, floating_bar, signed, signed_shares
from openmav.view import View

NUMBER = r"[+-]?\d+\.\d\d"


def make_view(*steps: object, **changes: object) -> View:
    """A view that draws bars around 0."""
    return view_with(*steps, **{"modes": {"attribution": "around 0"}, **changes})  # type: ignore[arg-type]


def rivals(view: View) -> tuple[View, int]:
    """The view with a candidate selected that was not chosen, and its place among those that were attributed."""
    step = view.step
    assert step is not None
    row = next(at for at in range(10) if int(step.candidates.token_ids[at]) != step.token_id)
    return view.at_candidate(row), row


def test_numbers_are_those_of_the_step() -> None:
    view = make_view(deep_steps(4))
    assert view.step is not None
    for row in draw("attribution", view, 70, 30):
        layer, *numbers = re.findall(rf"^[▸ ]*(\d+)|({NUMBER})", row)
        values = [float(text) for _, text in numbers]
        assert values == pytest.approx(view.step.values["attribution"][int(layer[0])], abs=0.0051)


def test_bars_point_to_the_sign() -> None:
    view = make_view(deep_steps(4))
    assert view.step is not None
    for row in draw("attribution", view, 75, 30):
        for bar, number in re.findall(rf"([ █▏▎▍▌▋▊▉▐▕]*│[ █▏▎▍▌▋▊▉]*?) +({NUMBER})", row[5:]):
            left, right = bar.split("│")
            value = float(number)
            assert bool(left.strip()) == (value < 0)
            assert bool(right.strip()) == (value > 0)


def test_the_sum_stands_beside_the_logit() -> None:
    view = make_view(deep_steps(4))
    assert view.step is not None
    values = view.step.values
    whole = values["attribution"].sum(dtype=np.float64) + values["attribution.embedding"][0] + values["attribution.bias"][0]
    said = note("attribution", view, 150, 10)
    assert f"sum {whole:.2f} = logit {values['attribution.logit'][0]:.2f}" in said
    assert f"embedding {signed(float(values['attribution.embedding'][0]), 2)}" in said


def test_what_is_not_explained_is_said() -> None:
    view = make_view(deep_steps(2))
    assert view.step is not None
    off = with_values(view.step, **{"attribution.rest": np.array([1.5])})
    assert "1.50 not explained" in note("attribution", make_view([off]), 150, 10)


def test_rows_below_the_layers_hold_the_rest_of_the_sum() -> None:
    view = make_view(deep_steps(4))
    assert view.step is not None
    rows = draw("attribution", view, 70, 34)[30:]
    for row, name in zip(rows, ("embedding", "bias", "rest")):
        assert name in row
        assert float(re.search(NUMBER, row)[0]) == pytest.approx(view.step.values[f"attribution.{name}"][0], abs=0.0051)  # type: ignore[index]
    total, logit = re.findall(NUMBER, rows[3])
    assert float(total) == pytest.approx(float(logit), abs=0.0101)


def test_a_head_without_a_direction_says_so_and_shows_no_sum() -> None:
    info = make_info(3, 2, missing={"attribution": dict.fromkeys(range(3), "the head is not linear")})
    (step,) = deep_steps(1, info)
    gone = {f"attribution.{name}": np.array([np.nan]) for name in ("embedding", "bias", "rest", "logit")}
    view = make_view([with_values(step, **gone)], info)
    rows = draw("attribution", view, 90, 20)
    assert len(rows) == 3
    assert all("none: the head is not linear" in row for row in rows)
    assert "NaN" not in "".join(rows) + note("attribution", view, 90, 20)


def test_a_layer_may_have_one_part_only() -> None:
    info = make_info(3, 2, missing={"attribution": {1: "no MLP in this layer"}})
    step = deep_steps(1, make_info(3, 2))[0]
    view = make_view([with_nan(step, "attribution", 1, 1)], info)
    row = draw("attribution", view, 90, 3)[1]
    assert f"{step.values['attribution'][1, 0]:+.2f}" in row
    assert "none: no MLP in this layer" in row


def test_what_a_layer_above_hides_is_none_and_stays_out_of_the_sum() -> None:
    info = make_info(3, 2, missing={"attribution": {1: "no parts found"}})
    step = deep_steps(1, make_info(3, 2))[0]
    parts = step.values["attribution"].copy()
    parts[:2] = np.nan
    hidden = {"attribution": parts, "attribution.embedding": np.array([np.nan]), "attribution.rest": np.array([2.5])}
    view = make_view([with_values(step, **hidden)], info)
    rows = draw("attribution", view, 90, 20)
    assert "none: lost in layer 1" in rows[2]
    assert "none: no parts found" in rows[1]
    assert rows[3].split()[-2:] == ["none", "embedding"]
    assert "embedding none" in note("attribution", view, 90, 3)
    whole = parts[2].sum(dtype=np.float64) + step.values["attribution.bias"][0]
    assert f"sum {whole:.2f} = logit" in note("attribution", view, 90, 3)
    assert "2.50 not explained" in note("attribution", view, 90, 3)
    assert sum(row.count("= logit") for row in rows) == 1
    assert "logit" not in note("attribution", view, 90, 20), "the rows below the layers say it already"


def test_what_reads_as_nothing_has_no_bar() -> None:
    view = make_view(deep_steps(2))
    assert view.step is not None
    tiny = with_values(view.step, **{"attribution.rest": np.array([1e-6])})
    assert draw("attribution", make_view([tiny]), 70, 34)[32].split() == ["│", "0.00", "rest"]


@pytest.mark.parametrize("width", [30, 36, 50, 80])
def test_the_last_row_is_never_cut(width: int) -> None:
    assert "…" not in draw("attribution", make_view(deep_steps(2)), width, 34)[33]


def test_two_candidates_are_compared() -> None:
    view, at = rivals(make_view(deep_steps(4)))
    step = view.step
    assert step is not None
    expected = step.values["attribution"] - step.values["attribution.top"][:, :, at]
    for row in draw("attribution", view, 70, 30):
        layer, *numbers = re.findall(rf"^[▸ ]*(\d+)|({NUMBER})", row)
        assert [float(text) for _, text in numbers] == pytest.approx(expected[int(layer[0])], abs=0.0051)
    heading = panel("attribution").heading(view, 100)
    assert f"{step.token.replace(' ', '·')} minus {step.candidates.tokens[at].replace(' ', '·')}" in heading
    lead = step.values["attribution.logit"][0] - step.values["attribution.top.logit"][0, at]
    assert f"difference {lead:.2f}" in note("attribution", view, 150, 30)


def test_the_chosen_candidate_is_compared_with_nothing() -> None:
    view = make_view(deep_steps(4))
    step = view.step
    assert step is not None
    chosen = int(np.nonzero(step.candidates.token_ids == step.token_id)[0][0])
    assert draw("attribution", view.at_candidate(chosen), 70, 30) == draw("attribution", view, 70, 30)


def test_an_unlikely_candidate_can_not_be_compared_and_that_is_said() -> None:
    view = make_view(deep_steps(4)).at_candidate(15)
    assert "no comparison: not among the ten most likely" in note("attribution", view, 150, 30)
    assert " minus " not in panel("attribution").heading(view, 100)


# ---- bars around 0 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "text"), [(1.2, "+1.20"), (-0.314, "-0.31"), (0.0, "0.00"), (-0.001, "0.00"), (0.001, "0.00")])
def test_signs(value: float, text: str) -> None:
    assert signed(value, 2) == text


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "NaN"), (float("inf"), "inf"), (float("-inf"), "-inf")])
def test_signs_of_what_is_no_number(value: float, text: str) -> None:
    assert signed(value, 2) == text


def test_shares_keep_the_sign() -> None:
    assert signed_shares([2.0, -4.0, np.nan]).tolist() == [0.5, -1.0, 0.0]
    assert signed_shares([1.0, -(np.e**2) + 1], "log").tolist() == pytest.approx([np.log(2) / 2, -1.0])
    assert signed_shares([0.0]).tolist() == [0.0]


@pytest.mark.parametrize("room", range(12))
@pytest.mark.parametrize("share", [-1.0, -0.4, -0.01, 0.0, 0.01, 0.5, 1.0])
def test_a_bar_fills_its_room(share: float, room: int) -> None:
    assert line_width(diverging_bar(PALETTES["dark"], share, room)) == room


def test_bars_grow_from_the_middle() -> None:
    drawn = [line_text(diverging_bar(PALETTES["dark"], share, 9)) for share in (-1.0, -0.5, -0.01, 0.0, 0.01, 0.5, 1.0)]
    assert drawn == ["████│    ", "  ██│    ", "   ▕│    ", "    │    ", "    │▏   ", "    │██  ", "    │████"]


def test_blue_takes_away_and_orange_adds() -> None:
    palette = PALETTES["dark"]
    colours = {share: {s.style.color.name for s in diverging_bar(palette, share, 9) if "█" in s.text} for share in (-1.0, 1.0)}  # type: ignore[union-attr]
    assert colours == {-1.0: {palette.diverging[0]}, 1.0: {palette.diverging[-1]}}


def test_without_colour_the_side_says_it() -> None:
    assert "█│" in "".join(draw("attribution", without_colour(make_view(deep_steps(4))), 90, 30))


# ---- from the embedding to the output --------------------------------------------------------------------------------------


def places(line: Line, hues: tuple[str, str]) -> tuple[float, float, bool]:
    """Where a floating bar begins and ends, in cells, and whether it goes to the right."""
    at = 0.0
    for segment in line:
        name = segment.style.color.name if segment.style and segment.style.color else ""
        if name in hues and segment.text.strip():
            text = segment.text
            left = at + 0.5 * (text[0] == "▐") + 0.875 * (text[0] == "▕")
            return left, at + len(text) - 1 + (" ▏▎▍▌▋▊▉█".find(text[-1]) / 8 if text[-1] not in "▐▕" else 1.0), name == hues[1]
        at += len(segment.text)
    raise AssertionError("no bar")


def test_a_waterfall_goes_from_the_embedding_to_the_logit() -> None:
    info = make_info(8, 2)
    view = view_with(deep_steps(4, info), info)
    step = view.step
    assert step is not None
    values = {
        name: value.astype(np.float64) for name, value in step.values.items() if name.startswith("attribution") and value.dtype.kind == "f"
    }
    start = float(values["attribution.rest"][0] + values["attribution.bias"][0] + values["attribution.embedding"][0])
    sums = start + np.cumsum(values["attribution"].sum(axis=1))
    rows = draw("attribution", view, 100, 8 + 3 + 1)
    assert len(rows) == 8 + 3 + 1
    for row in rows[:8]:
        layer, *numbers = re.findall(rf"^[▸ ]*(\d+)|({NUMBER})", row)
        expected = [*values["attribution"][int(layer[0])], sums[int(layer[0])]]
        assert [float(text) for _, text in numbers] == pytest.approx(expected, abs=0.0051)
    assert rows[-1].endswith(f"= logit {values['attribution.logit'][0]:.2f}")
    assert sums[-1] == pytest.approx(values["attribution.logit"][0], abs=1e-3)
    palette = PALETTES["dark"]
    lines = panel("attribution").render(view, 100, 20)
    bars = [places(line, (palette.diverging[0], palette.diverging[-1])) for line in lines[:8]][::-1]
    for layer in range(1, 8):
        (left, right, up), (_, _, was_up) = bars[layer], bars[layer - 1]
        before = bars[layer - 1][1] if was_up else bars[layer - 1][0]
        assert up == (sums[layer] >= sums[layer - 1])
        assert (left if up else right) == pytest.approx(before, abs=1.01), "each begins where the one below ends"


def test_parts_that_are_not_known_make_no_waterfall() -> None:
    info = make_info(3, 2)
    step = with_nan(deep_steps(1, info)[0], "attribution", 1, 0)
    whole, broken = view_with(deep_steps(1, info), info), view_with([step], info)
    assert line_text(panel("attribution").legend(whole, 80)).split() == ["attn.", "MLP", "sum"]
    assert line_text(panel("attribution").legend(whole, 40)).split() == ["attn.", "MLP"]
    assert panel("attribution").legend(broken, 80) is None
    assert "attention | MLP" in panel("attribution").heading(broken, 80)
    assert note("attribution", whole, 16, 5).startswith("attn. | MLP")
    assert any("! NaN" in row for row in draw("attribution", view_with([step], info), 80, 10))


@pytest.mark.parametrize(("start", "end"), [(0, 10), (10, 0), (3.3, 3.3), (2.5, 7.25), (9.99, 10), (0, 0), (10, 10), (7, 2.2)])
def test_a_floating_bar_stays_in_its_room_and_leaves_a_trace(start: float, end: float) -> None:
    line = floating_bar(PALETTES["dark"], start, end, 10)
    assert line_width(line) == 10
    assert line_text(line).strip()


def test_the_waterfall_stands_on_an_axis_from_0_to_the_logit() -> None:
    view = view_with(deep_steps(4))
    assert view.step is not None
    last = next(row for row in draw("attribution", view, 90, 60) if "= logit" in row)
    logit = f"{float(view.step.values['attribution.logit'].ravel()[0]):.2f}"
    assert last.endswith(f"= logit {logit}")
    axis = last.removesuffix(f"= logit {logit}").split()
    assert axis in ([logit], ["0", logit], [logit, "0"])
