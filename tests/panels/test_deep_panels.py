"""What holds for every panel of attention, lens and attribution, whatever it shows."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from deep import deep_steps, deepen
from drawing import draw, make_view, note, panel, without_colour

from fakes import HOSTILE, make_info, make_step, with_nan
from openmav import registry
from openmav.apps.options import AppOptions
from openmav.paint import line_width
from openmav.panels import needs
from openmav.panels._view import View

NAMES = ["attention_map", "attention_row", "attribution", "lens_map", "logit_lens"]
LAYERED = [name for name in NAMES if getattr(panel(name), "LAYERS", False)]
KINDS = [(name, mode) for name in NAMES for mode in getattr(panel(name), "MODES", ("",))]
SIZES = [(30, 4), (60, 14), (110, 32), (240, 70)]  # cells inside the frame
SMALL = make_info(4, 3)
every = pytest.mark.parametrize(("name", "mode"), KINDS)
sizes = pytest.mark.parametrize("size", SIZES)


def seen(name: str, mode: str, view: View) -> View:
    return replace(view, modes={name: mode} if mode else {})


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_a_newcomer_what_he_needs(name: str) -> None:
    for part in ("What it shows: ", "How to read it: ", "Formula: ", "Source: ", "What is normal: "):
        assert part in panel(name).HELP
    assert "\u2014" not in panel(name).HELP


@pytest.mark.parametrize("name", NAMES)
def test_needs_are_measures(name: str) -> None:
    assert needs([name]) <= set(registry.names("measures"))


@every
@sizes
@pytest.mark.parametrize("shape", [(2, 8), (32, 32), (80, 128)])
def test_any_model_fits_any_box(name: str, mode: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    info = make_info(*shape)
    view = seen(name, mode, make_view(deep_steps(3, info), info))
    assert any(draw(name, view, *size))
    assert all(unicodedata.category(char) != "Cc" for char in note(name, view, *size))


@every
@sizes
def test_nothing_yet(name: str, mode: str, size: tuple[int, int]) -> None:
    assert draw(name, seen(name, mode, View()), *size) == []
    assert draw(name, seen(name, mode, make_view(0)), *size) == ["no token yet"]


@every
@pytest.mark.parametrize("size", [(0, 0), (1, 1), (3, 2), (7, 1)])
def test_a_box_that_is_far_too_small(name: str, mode: str, size: tuple[int, int]) -> None:
    view = seen(name, mode, make_view(deep_steps(9, SMALL), SMALL))
    assert isinstance(panel(name).render(view, *size), list)
    assert isinstance(note(name, view, *size), str)


@every
def test_what_was_not_captured_says_so(name: str, mode: str) -> None:
    view = seen(name, mode, make_view([replace(make_step(0), values={})]))
    assert draw(name, view, 40, 4) == ["not captured for this token"]


@every
@sizes
def test_no_token_breaks_a_row(name: str, mode: str, size: tuple[int, int]) -> None:
    before = deep_steps(2, SMALL)
    for token in HOSTILE:
        made = deepen(make_step(2, token, SMALL), SMALL)
        made = replace(made, pieces={**made.pieces, int(made.values["logit_lens.token_ids"][-1, 0]): token})
        text = "".join(draw(name, seen(name, mode, make_view((*before, made), SMALL)), *size))
        assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs")], ascii(token)


@every
def test_without_colour_nothing_has_one(name: str, mode: str) -> None:
    view = seen(name, mode, without_colour(make_view(deep_steps(9, SMALL), SMALL)))
    assert draw(name, view, 60, 12)
    legend = panel(name).legend(view, 60) if hasattr(panel(name), "legend") else []
    for segment in [*(segment for line in panel(name).render(view, 60, 12) for segment in line), *legend]:
        assert segment.style is None or (segment.style.color is None and segment.style.bgcolor is None)


@every
def test_few_styles_are_enough(name: str, mode: str) -> None:
    lines = panel(name).render(seen(name, mode, make_view(deep_steps(60))), 156, 41)
    assert len({segment.style for line in lines for segment in line}) <= 64


@every
def test_equal_neighbours_are_merged(name: str, mode: str) -> None:
    lines = panel(name).render(seen(name, mode, make_view(deep_steps(60))), 156, 41)
    assert all(line_width(line) <= 156 for line in lines)
    assert max(len(line) for line in lines) <= 90


@pytest.mark.parametrize("name", LAYERED)
def test_a_row_is_the_same_layer_everywhere(name: str) -> None:
    view = make_view(deep_steps(3), scroll=4)
    assert [row.split()[0].strip("▲▼") for row in draw(name, view, 40, 5)] == ["25", "24", "23", "22", "21"]
    assert "21–25 of 30 ▲▼" in note(name, view, 60, 5)


@pytest.mark.parametrize("name", LAYERED)
def test_a_click_selects_the_layer(name: str) -> None:
    view = make_view(deep_steps(3), scroll=4)
    assert panel(name).pick(view, 40, 5, 8, 2).layer == 23
    assert panel(name).pick(view, 40, 5, 200, 9).layer == view.layer


@pytest.mark.parametrize(("name", "measure"), [(name, panel(name).NEEDS[0]) for name in ("attention_map", "attribution", "logit_lens")])
def test_a_layer_without_the_value_says_none_and_why(name: str, measure: str) -> None:
    info = make_info(4, 3, missing={measure: {2: "state space"}})
    rows = draw(name, make_view(deep_steps(2, info), info), 60, 4)
    assert "none: state space" in rows[1]
    assert "NaN" not in "".join(rows)
    assert not make_view(deep_steps(2, info), info).alarms()


@pytest.mark.parametrize(
    ("name", "measure", "place"),
    [
        ("attention_map", "attention_entropy", (2, 0)),
        ("attention_row", "attention_rows", (3, 0, 5)),
        ("attribution", "attribution", (2, 1)),
        ("lens_map", "logit_lens", (2, 0)),
        ("logit_lens", "logit_lens", (2, 0)),
    ],
)
def test_what_is_not_a_number_is_flagged(name: str, measure: str, place: tuple[int, ...]) -> None:
    step = with_nan(deepen(make_step(0, info=SMALL), SMALL), measure, *place)
    view = make_view([step], SMALL)
    assert "!" in "".join(draw(name, view, 60, 4))
    assert view.alarms() == (measure,)


@every
def test_a_scale_changes_no_number(name: str, mode: str) -> None:
    marks = str.maketrans(dict.fromkeys(" ▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒▓▐▕│-=≡#", None))
    drawn = []
    for scale in ("linear", "log"):
        view = seen(name, mode, make_view(deep_steps(12), options=AppOptions(scale=scale)))  # type: ignore[arg-type]
        drawn.append([row.translate(marks) for row in draw(name, view)])
    assert drawn[0] == drawn[1]


def test_a_frame_is_drawn_in_time() -> None:
    """CPU seconds of one frame of 160 x 45 cells: the median panel well under 16 ms, the worst under 33 ms; with room for slow machines."""
    info = make_info(32, 32)
    steps = [deepen(make_step(at, info=info), info, tokens=5000 if at == 39 else None) for at in range(40)]
    taken = []
    for name, mode in KINDS:
        view = seen(name, mode, make_view(steps, info))
        best = min(_seconds(name, view) for _ in range(3))
        taken.append((best, name, mode))
    assert max(taken)[0] < 0.066, max(taken)
    assert np.median([one[0] for one in taken]) < 0.032, sorted(taken)


def _seconds(name: str, view: View) -> float:
    began = time.process_time()
    panel(name).render(view, 156, 41)
    return time.process_time() - began


def test_what_is_out_of_sight_is_said() -> None:
    """No panel cuts rows, columns or heads silently, in any box."""
    info = make_info(80, 128)
    view = make_view(deep_steps(40, info), info)
    for name, size in product(("attention_map", "lens_map"), SIZES[:2]):
        said = note(name, view, *size)
        assert ("heads/cell" in said or "of 128" in said or "mean of" in said) if name == "attention_map" else "40" in said
    assert "of 80" in note("attribution", view, 60, 14)
    assert "of 80" in note("logit_lens", view, 60, 14)
    assert "14 of 53 tokens, the others take" in note("attention_row", view, 60, 14)
