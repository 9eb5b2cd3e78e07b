"""What holds for every panel there is, whatever it shows: a new one is tested as soon as it is registered."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from drawing import SIZES, draw, make_view, note, panel, without_colour

from everything import whole_step, whole_steps
from fakes import HOSTILE, make_info, make_step, sampled, with_nan, with_values
from openmav.paint import line_width
from openmav.panels import needs
from openmav.plugins import registry
from openmav.record import Step
from openmav.view import View
from openmav.view.options import AppOptions

NAMES = registry.names("panels")
KINDS = [(name, mode) for name in NAMES for mode in getattr(panel(name), "MODES", ("",))]
LAYERED = [name for name in NAMES if getattr(panel(name), "LAYERS", False)]
MEASURED = [name for name in LAYERED if panel(name).NEEDS]  # those of a comparison show what no measure of one model is
GRIDS = ["compare_map", "lens_map", "norm_map"]  # a row holds many tokens, and has no room for a reason
BARS = ["attention_entropy", "attention_norms", "mlp_norm", "output_distribution", "residual_norms", "top_predictions"]
SMALL = make_info(4, 3)
BEFORE_A_TOKEN = {  # all others: "no token yet"
    "branches": "One branch so far",
    "compare_text": "The capital of France",
    "generated_text": "The capital of France",
    "input_attribution": "Nothing was asked yet",
    "watches": "Nothing is watched yet",
}
COMPARED = {"compare_candidates", "compare_layers", "compare_map", "compare_text"}
OF_ANY_TOKEN = {  # these show what needs no measure
    *("accounting", "branches", "generated_text", "health", "input_attribution", "interventions", "sweep", "uncertainty", "timeline"),
    *("token_card", "top_predictions", "watches"),
}
BLOCKS = str.maketrans(dict.fromkeys(" ▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒▓▐▕│-=≡#", None))  # what a scale may change
AXES = re.compile(
    r" *(0( +50)? +100 %|0\.01 % +100 %) *|^ *\d+\.\d (?=[▁▂▃▄▅▆▇█ ]*$)"
)  # above and beside bars: they say how long those of a scale are
name_only = pytest.mark.parametrize("name", NAMES)
every = pytest.mark.parametrize(("name", "mode"), KINDS)
layered = pytest.mark.parametrize("name", LAYERED)


@cache
def steps(count: int, layers: int = 30, heads: int = 9) -> tuple[Step, ...]:
    return whole_steps(count, make_info(layers, heads))


def seen(name: str, mode: str, view: View) -> View:
    return replace(view, modes={name: mode} if mode else {})


def usual(name: str, mode: str, **changes: object) -> View:
    """Twelve tokens of a model of 30 layers."""
    return seen(name, mode, make_view(steps(12), **changes))  # type: ignore[arg-type]


@name_only
def test_help_tells_a_newcomer_what_he_needs(name: str) -> None:
    for part in ("What it shows: ", "How to read it: ", "Formula: ", "Source: ", "What is normal: "):
        assert part in panel(name).HELP
    assert "\u2014" not in panel(name).HELP


@name_only
def test_needs_are_measures(name: str) -> None:
    assert needs([name]) <= set(registry.names("measures"))


@every
def test_nothing_yet(name: str, mode: str) -> None:
    for size in SIZES:
        draw(name, seen(name, mode, View()), *size)
    assert draw(name, seen(name, mode, make_view(0)))[0].startswith(BEFORE_A_TOKEN.get(name, "no token yet"))


@every
def test_any_model_fits_any_box(name: str, mode: str) -> None:
    for shape, size in product([(1, 1), (2, 4), (30, 9), (80, 128)], [*SIZES, (240, 70)]):
        info = make_info(*shape)
        view = seen(name, mode, make_view(steps(3, *shape), info, sampled()))
        assert any(draw(name, view, *size))
        assert all(unicodedata.category(char) != "Cc" for char in note(name, view, *size))


@every
def test_a_box_that_is_far_too_small(name: str, mode: str) -> None:
    for size in ((0, 0), (1, 1), (3, 2), (7, 1)):
        view = seen(name, mode, make_view(steps(9, 4, 3), SMALL))
        assert isinstance(panel(name).render(view, *size), list)
        assert isinstance(note(name, view, *size), str)


@every
def test_no_token_breaks_a_row(name: str, mode: str) -> None:
    for token, size in product(HOSTILE, SIZES):
        view = seen(name, mode, make_view((*steps(2, 4, 3), hostile(token)), SMALL))
        assert not [char for char in "".join(draw(name, view, *size)) if unicodedata.category(char) in ("Cc", "Cf", "Cs")], ascii(token)


@cache
def hostile(token: str) -> Step:
    """The third step says this token, and so does the lens of its last layer."""
    step = whole_step(2, SMALL, token)
    return replace(step, pieces={**step.pieces, int(step.values["logit_lens.token_ids"][-1, 0]): token})


@every
def test_without_colour_nothing_has_one(name: str, mode: str) -> None:
    view = without_colour(usual(name, mode))
    assert draw(name, view)
    legend = panel(name).legend(view, 60) or []
    for segment in [*(segment for line in panel(name).render(view, 60, 12) for segment in line), *legend]:
        assert segment.style is None or (segment.style.color is None and segment.style.bgcolor is None)


@every
def test_all_looks_draw_the_same_text(name: str, mode: str) -> None:
    view = usual(name, mode)
    assert draw(name, replace(view, theme="light")) == draw(name, view)


@every
def test_a_scale_changes_no_number(name: str, mode: str) -> None:
    plain, *scaled = (
        [AXES.sub("", f"{row} ").translate(BLOCKS) for row in draw(name, usual(name, mode, options=AppOptions(scale=scale)))]  # type: ignore[arg-type]
        for scale in ("linear", "log", "minmax")
    )
    assert scaled == [plain, plain]


@every
def test_few_styles_and_merged_neighbours(name: str, mode: str) -> None:
    lines = panel(name).render(seen(name, mode, make_view(steps(60))), 156, 41)
    assert len({segment.style for line in lines for segment in line}) <= 64
    assert all(line_width(line) <= 156 for line in lines)
    assert max(len(line) for line in lines) <= 90


@every
def test_what_was_not_captured_says_so(name: str, mode: str) -> None:
    view = seen(name, mode, make_view([replace(make_step(0), values={})]))
    drawn = draw(name, view, 40, 4)
    assert (drawn == ["not captured for this token"]) == (name not in OF_ANY_TOKEN | COMPARED)
    assert drawn
    later = draw(name, replace(view, recomputing=0), 40, 4)
    assert (later == ["computing"]) == (drawn == ["not captured for this token"])
    assert draw(name, replace(view, recomputing=1), 40, 4) == drawn, "another token is"


@pytest.mark.parametrize("name", BARS)
def test_a_longest_bar_is_kept_to(name: str) -> None:
    assert any("████" in row for row in draw(name, make_view(30)))
    assert not any("████" in row for row in draw(name, make_view(30, options=AppOptions(max_bar_length=3))))


# ---- a row a layer -----------------------------------------------------------------------------------------------------------


@layered
def test_a_row_is_the_same_layer_everywhere(name: str) -> None:
    rows = draw(name, make_view(steps(3), scroll=4), 40, 5)
    assert [row.split()[0].strip("▲▼") for row in rows] == ["25", "24", "23", "22", "21"]


@layered
def test_rows_out_of_sight_are_announced(name: str) -> None:
    view = make_view(steps(3), scroll=4)
    rows = draw(name, view, 40, 5)
    assert "▲" in rows[0]
    assert "▼" in rows[-1]
    assert "21–25 of 30 ▲▼" in note(name, view, 60, 5)
    assert "of 30" not in note(name, make_view(steps(3)), 40, 30)


@layered
def test_a_neighbour_may_have_drawn_the_labels(name: str) -> None:
    assert any(re.match(r"[ ▸]29[ ▲▼] ", row) for row in draw(name, make_view(steps(3)), 40, 5))
    assert not any(re.match(r"[ ▸]29[ ▲▼] ", row) for row in draw(name, make_view(steps(3)), 40, 5, gutter=False))


@layered
def test_a_click_selects_the_layer(name: str) -> None:
    view = make_view(steps(3), scroll=4)
    assert panel(name).pick(view, 40, 5, 8, 2).layer == 23
    assert panel(name).pick(view, 40, 5, 200, 9).layer == view.layer


@pytest.mark.parametrize("name", [name for name in MEASURED if name not in GRIDS])
def test_a_layer_without_the_value_says_none_and_why(name: str) -> None:
    info = make_info(4, 3, missing={panel(name).NEEDS[0]: {2: "state space"}})
    view = make_view(whole_steps(2, info), info)
    rows = draw(name, view, 60, 4)
    assert "none" in rows[1]
    assert "state space" in rows[1]
    assert "NaN" not in "".join(rows)
    assert not view.alarms()


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_not_a_number_is_shown_and_flagged(name: str) -> None:
    measure, info = panel(name).NEEDS[0], make_info(4, 1)
    for value in (np.nan, np.inf, -np.inf):
        step = whole_step(0, info)
        place = (2,) + (0,) * (step.values[measure].ndim - 1)
        view = make_view([with_nan(step, measure, *place, value=value)], info)
        assert "!" in draw(name, view, 60, 4)[1]
        assert view.alarms() == (measure,)


@pytest.mark.parametrize("name", ["attention_norms", "mlp_norm", "residual_norms"])
def test_it_says_which_of_them_it_is(name: str) -> None:
    info = make_info(4, 1)
    for value, shown in ((np.nan, "! NaN"), (np.inf, "! inf"), (-np.inf, "! -inf")):
        view = make_view([with_nan(make_step(0, info=info), panel(name).NEEDS[0], 2, value=value)], info)
        assert shown in draw(name, view, 40, 4)[1]


def test_values_may_be_in_any_range() -> None:
    info = make_info(2, 1)
    for size in (1e-6, 1e-2, 1.0, 1e3, 1e8, 1e30):
        step = with_values(make_step(0, info=info), mlp_norm=np.array([size, size / 2]))
        assert any(char.isdigit() for char in draw("mlp_norm", make_view([step], info), 20, 2)[0].split()[-1])
