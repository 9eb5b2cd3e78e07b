"""What holds for every panel, whatever it shows."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from drawing import SIZES, draw, make_view, panel, without_colour

from fakes import HOSTILE, make_info, make_step, make_steps, sampled, with_nan, with_values
from openmav import registry
from openmav.apps.options import AppOptions
from openmav.paint import PALETTES
from openmav.panels import needs
from openmav.panels._view import View
from openmav.settings import CORE_MEASURES

NAMES = [
    "attention_entropy",
    "attention_norms",
    "generated_text",
    "mlp_activations",
    "output_distribution",
    "residual_norms",
    "timeline",
    "top_predictions",
]
every = pytest.mark.parametrize("name", NAMES)
sizes = pytest.mark.parametrize("size", SIZES)
SMALL = make_info(4, 3)
LAYERED = [name for name in NAMES if getattr(panel(name), "LAYERS", False)]


def test_all_of_them_are_listed() -> None:
    assert set(NAMES) <= set(registry.names("panels"))


@every
def test_help_tells_a_newcomer_what_he_needs(name: str) -> None:
    for part in ("What it shows: ", "How to read it: ", "Formula: ", "Source: ", "What is normal: "):
        assert part in panel(name).HELP
    assert "\u2014" not in panel(name).HELP


@every
def test_needs_are_measures_that_a_session_computes(name: str) -> None:
    assert needs([name]) <= set(CORE_MEASURES)


@every
@sizes
def test_nothing_yet(name: str, size: tuple[int, int]) -> None:
    draw(name, View(), *size)
    draw(name, make_view(0), *size)


@every
@sizes
@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (30, 9), (80, 128)])
def test_any_model_fits_any_box(name: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    info = make_info(*shape)
    view = make_view(make_steps(4, info), info, sampled())
    assert any(draw(name, view, *size))


@every
@pytest.mark.parametrize("size", [(0, 0), (1, 1), (3, 2), (7, 1)])
def test_a_box_that_is_far_too_small(name: str, size: tuple[int, int]) -> None:
    view = make_view(30)
    lines = panel(name).render(view, *size)
    assert isinstance(lines, list)


@every
@sizes
def test_no_token_breaks_a_row(name: str, size: tuple[int, int]) -> None:
    before, info = make_steps(3, SMALL), SMALL
    for token in HOSTILE:
        text = "".join(draw(name, make_view((*before, make_step(3, token, info)), info), *size))
        assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs")], ascii(token)


@every
@sizes
def test_without_colour_the_text_is_the_same_kind(name: str, size: tuple[int, int]) -> None:
    view = without_colour(make_view(30))
    lines = panel(name).render(view, *size)
    assert draw(name, view, *size)
    for segment in (segment for line in lines for segment in line):
        assert segment.style is None or (segment.style.color is None and segment.style.bgcolor is None)


@every
@pytest.mark.parametrize("scale", ["log", "minmax"])
def test_a_scale_changes_no_number(name: str, scale: str) -> None:
    options = AppOptions(scale=scale)  # type: ignore[arg-type]
    marks = str.maketrans(dict.fromkeys(" ▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒▓", None))
    plain, scaled = make_view(30), make_view(30, options=options)
    assert [row.translate(marks) for row in draw(name, scaled)] == [row.translate(marks) for row in draw(name, plain)]


@every
def test_a_longest_bar_is_kept_to(name: str) -> None:
    view = make_view(30, options=AppOptions(max_bar_length=3))
    if name not in ("timeline", "generated_text"):
        assert not any("████" in row for row in draw(name, view))


@every
def test_few_styles_are_enough(name: str) -> None:
    lines = panel(name).render(make_view(60), 110, 30)
    assert len({segment.style for line in lines for segment in line}) <= 64


@pytest.mark.parametrize("name", LAYERED)
def test_a_row_is_the_same_layer_everywhere(name: str) -> None:
    rows = draw(name, make_view(scroll=4), 40, 5)
    assert [row.split()[0].strip("▲▼") for row in rows] == ["25", "24", "23", "22", "21"]


@pytest.mark.parametrize("name", LAYERED)
def test_rows_out_of_sight_are_announced(name: str) -> None:
    rows = draw(name, make_view(scroll=4), 40, 5)
    assert "▲" in rows[0]
    assert "▼" in rows[-1]
    assert "layers 21–25 of 30 ▲▼" in panel(name).note(make_view(scroll=4), 40, 5)
    assert "of 30" not in panel(name).note(make_view(), 40, 30)


@pytest.mark.parametrize("name", LAYERED)
def test_a_neighbour_may_have_drawn_the_labels(name: str) -> None:
    assert not any(row.startswith((" 29", "▸29")) for row in draw(name, make_view(gutter=False), 40, 5))


@pytest.mark.parametrize("name", LAYERED)
def test_a_layer_without_the_value_says_none_and_why(name: str) -> None:
    measure = panel(name).NEEDS[0]
    info = make_info(4, 3, missing={measure: {2: "state space"}})
    rows = draw(name, make_view(make_steps(2, info), info), 60, 4)
    assert "none" in rows[1]
    assert "state space" in rows[1]
    assert "NaN" not in "".join(rows)
    assert not make_view(make_steps(2, info), info).alarms()


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "! NaN"), (np.inf, "! inf"), (-np.inf, "! -inf")])
def test_what_is_not_a_number_is_shown_and_flagged(name: str, value: float, shown: str) -> None:
    measure = panel(name).NEEDS[0]
    info = make_info(4, 1)
    step = with_nan(make_step(0, info=info), measure, 2, value=value)
    view = make_view([step], info)
    assert shown in draw(name, view, 40, 4)[1]
    assert view.alarms() == (measure,)


@pytest.mark.parametrize("name", [*LAYERED, "output_distribution"])
def test_a_measure_that_was_not_computed_says_so(name: str) -> None:
    step = make_step(0)
    view = make_view([replace(step, values={})])
    assert draw(name, view, 40, 4) == ["not captured for this token"]


@pytest.mark.parametrize("name", LAYERED)
def test_a_click_selects_the_layer(name: str) -> None:
    view = make_view(scroll=4)
    assert panel(name).pick(view, 40, 5, 8, 2).layer == 23
    assert panel(name).pick(view, 40, 5, 8, 9) == view


@every
def test_all_looks_draw_the_same_text(name: str) -> None:
    view = make_view(20)
    assert draw(name, replace(view, palette=PALETTES["light"])) == draw(name, view)


def test_values_may_be_in_any_range() -> None:
    info = make_info(2, 1)
    for size in (1e-6, 1e-2, 1.0, 1e3, 1e8, 1e30):
        step = with_values(make_step(0, info=info), mlp_norm=np.array([size, size / 2]))
        assert any(char.isdigit() for char in draw("mlp_activations", make_view([step], info), 20, 2)[0].split()[-1])
