"""The panels of a comparison: their numbers are the Step's, flips and the first parting are marked."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_info, make_step, with_values
from openmav import panels
from openmav.paint import PALETTES, line_text, tile
from openmav.paint.theme import SHADES
from openmav.panels.widgets.layers_apart import amount, is_plain
from openmav.record.comparison import COMPARISON, Comparison, divergence_of, first_parting, flips, parting_of
from openmav.view import View

INFO = make_info(4, 2)
FACTS = Comparison("B · ablate L1.attn · float32 on cpu", "", 1e-6)


def compared(index: int, kl: float, share: np.ndarray, *, flipped: bool = False):
    step = make_step(index, None, INFO)
    mine = step.candidates
    ids = mine.token_ids[::-1] if flipped else mine.token_ids
    apart = [int(layer) for layer in np.flatnonzero(share[0] > FACTS.threshold)]
    values = {
        "kl": np.array([kl]),
        "difference": 10 * share,
        "share": share,
        "cosine": np.where(share > 0.5, np.nan, 1 - share),
        "parting": np.array([apart[0], 0] if apart else [-1, -1]),
        "first": np.array([1, 1, 0] if index >= 1 else [-1, -1, -1]),
        "token_ids": ids,
        "probs": np.linspace(0.5, 0.1, len(ids)),
        "probs_in_a": np.full(len(ids), 0.25),
        "probs_in_b": np.full(len(ids), 0.125),
        "logprob": np.array([-1.5]),
        "entropy": np.array([2.25]),
    }
    step = with_values(step, **{f"{COMPARISON}.{name}": array for name, array in values.items()})
    return replace(step, pieces=dict(zip(mine.token_ids.tolist(), mine.tokens)))


def view() -> View:
    """Three tokens: the same in both, then apart from layer 1 on, then a flip."""
    some = np.array([[0.0, 0.01, 0.2, 0.6]] * 3)
    steps = [compared(0, 0.0, np.zeros((3, 4))), compared(1, 2e-4, some), compared(2, 0.3, some / 2, flipped=True)]
    return replace(make_view(steps, INFO), comparison=FACTS)


def test_what_a_step_says_of_a_comparison() -> None:
    one, two, three = view().steps
    assert [divergence_of(step) for step in (one, two, three)] == pytest.approx([0.0, 2e-4, 0.3])
    assert [flips(step) for step in (one, two, three)] == [False, False, True]
    assert [parting_of(step) for step in (one, two, three)] == [None, (1, "attention"), (1, "attention")]
    assert [first_parting(step) for step in (one, two, three)] == [None, (1, 1, "attention"), (1, 1, "attention")]
    bare = make_step(0, None, INFO)
    assert (divergence_of(bare), flips(bare), parting_of(bare), first_parting(bare)) == (None, False, None, None)


def test_the_text_has_a_colour_for_each_power_of_ten_and_underlines_flips() -> None:
    data = panel("compare_text").module.data(view())
    assert data.text.values.tolist() == [0.0, 2.0, 5.0], "nothing, 10⁻⁴ and 10⁻¹ are the first, the fourth and the seventh step"
    assert data.text.forced == (False, False, True)
    assert "here 0.30 nats" in note("compare_text", view(), 60, 6)
    roomy = note("compare_text", view(), 60, 14)
    assert "full bar" not in roomy, "its steps are powers of ten, which no bar shows"
    assert not {*"▁▂▃▄▅▆▇█"} & {*"".join(draw("compare_text", view(), 60, 14))}


def test_both_lists_have_their_probabilities_and_a_flip_is_said() -> None:
    here = view()
    rows = draw("compare_candidates", without_colour(here), 100, 8)
    assert "B · ablate L1.attn" in rows[0]
    step = here.steps[-1]
    assert re.fullmatch(r"  token +p 0 +100 % +in B +token +p 0 +100 % +in A", rows[1])
    left, right = rows[2][:49], rows[2][51:]
    assert float(re.search(r"([\d.]+) %", left).group(1)) == pytest.approx(100 * step.candidates.probs[0], abs=0.06)  # type: ignore[union-attr]
    assert "50.0 %" in right
    assert "12.5 %" in left
    assert "25.0 %" in right
    assert right.startswith(("≠", "●"))
    said = note("compare_candidates", here, 100, 8)
    assert "KL 0.30 nats · flip · surprisal A, B" in said
    assert "1.50 · entropy" in said
    assert "flip" not in note("compare_candidates", here.at_step(1), 100, 8)


def test_where_there_is_no_room_a_run_is_named_by_what_the_other_has_not() -> None:
    here = replace(view(), comparison=replace(FACTS, b=f"{INFO.name} · ablate L1.attn · {INFO.dtype} on {INFO.device}"))
    assert "B  ablate L1.attn" in draw("compare_candidates", without_colour(here), 50, 8)[0]


def test_a_layer_row_has_the_difference_and_the_cosine_of_each_part() -> None:
    rows = draw("compare_layers", without_colour(view().at_step(1)), 110, 5)
    top, lowest = rows[0].split(), rows[3].split()
    assert top.count("6.00") == 3
    assert top.count("none") == 3, "a cosine of nothing"
    assert lowest.count("0") >= 3
    assert lowest.count("1.000000") == 3
    assert ["◆" in row for row in rows[:4]] == [False, False, True, False]
    assert rows[4].split() == ["attention", "MLP", "residual"]
    assert note("compare_layers", view().at_step(0), 110, 5) == "the same within rounding"
    titles = [panels.draw(panel("compare_layers").module, view().at_step(1), width, 5, width).title for width in (110, 50)]
    assert ["cosine" in title for title in titles] == [True, False], "said where there is room for it"
    assert "1.000000" not in "".join(draw("compare_layers", without_colour(view().at_step(1)), 50, 5))


def test_the_numbers_of_a_column_have_one_form() -> None:
    table = np.array([[0.0, 21.0, 130.0], [np.nan, 0.25, 9.5]])
    assert [amount(float(value), is_plain(table)) for value in table.ravel()] == ["0", "21.00", "130.00", "none", "0.25", "9.50"]
    table[1, 1] = 4e-5
    assert [amount(float(value), is_plain(table)) for value in table.ravel()] == ["0", "2.1e+01", "1.3e+02", "none", "4.0e-05", "9.5e+00"]
    assert [amount(value) for value in (0.3, 0.03, np.inf)] == ["0.30", "3.0e-02", "inf"]


def test_the_map_marks_the_first_place_where_they_part() -> None:
    here = without_colour(view())
    rows = [line_text(line) for line in panel("compare_map").render(here, 60, 5)]
    assert ["◆" in row for row in rows] == [False, False, True, False, False]
    assert "◆ first at token 1, layer 1, attention" in note("compare_map", here, 60, 5)
    assert line_text(panel("compare_map").legend(here, 60)).startswith("≤1.0e-06")
    assert "v: attention" in note("compare_map", here, 60, 5)


@pytest.mark.parametrize("theme", ["mono", "dark", "light"])
def test_what_rounding_explains_is_told_from_the_least_difference_and_that_from_the_largest(theme: str) -> None:
    here = replace(view(), theme=theme, layer=0)
    lines = panel("compare_map").render(here, 60, 5)[:4]
    cells = [cell for line in lines for cell in line]
    shades, grounds = {*"".join(cell.text for cell in cells)} & {*SHADES}, {cell.style.bgcolor for cell in cells if cell.style} - {None}
    looks = shades if theme == "mono" else grounds
    assert len(looks) >= 4, "nothing, 0.005, 0.1 and 0.6 are not one shade"
    assert line_text(panel("compare_map").legend(here, 60)).split()[-4:] == ["6.0e-01", "of", "‖A‖,", "log"]


@pytest.mark.parametrize("width", range(34, 100))
def test_the_map_has_its_legend_beside_its_heading(width: int) -> None:
    shown = panels.draw(panel("compare_map").module, view(), width, 5, width - 1)
    frame = line_text(tile(shown.lines, width + 4, 7, PALETTES["dark"], shown.title, legend=list(shown.legend or []))[0])
    assert "6.0e-01" in frame
    assert "residual" in frame


@pytest.mark.parametrize("name", ["compare_text", "compare_candidates", "compare_layers", "compare_map"])
def test_without_a_comparison_a_panel_says_what_makes_one(name: str) -> None:
    assert draw(name, make_view([make_step(0, None, INFO)], INFO), 60, 5)[0].strip() == "no comparison: mav compare makes one"


def test_layers_that_can_not_be_compared_say_why() -> None:
    step = with_values(make_step(0, None, INFO), **{f"{COMPARISON}.kl": np.array([0.1])})
    facts = replace(FACTS, why_no_layers="4 layers of width 8 and 2 layers of width 8")
    here = replace(make_view([step], INFO), comparison=facts)
    assert "layers are not compared: the models have 4 layers" in draw("compare_map", here, 90, 5)[0]


def test_a_narrow_panel_has_the_two_lists_one_above_the_other() -> None:
    here = view()
    rows = draw("compare_candidates", here, 32, 16)
    assert [row[:1] for row in (rows[0], rows[8])] == ["A", "B"]
    mine = here.steps[-1].candidates
    assert mine.tokens[0].strip() in rows[2]
    assert f"{100 * mine.probs[0]:.1f} %" in rows[2]
    assert "50.0 %" in rows[10]
