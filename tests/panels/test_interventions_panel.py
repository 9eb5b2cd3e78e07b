"""What is done to the model, and its candidates before and after."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from drawing import SIZES, draw, make_view, note, panel, without_colour

from fakes import HOSTILE, make_info, make_step, make_steps
from openmav.paint import PALETTES
from openmav.panels.interventions import other_layers, rows_of
from openmav.record import Baseline, Candidates, Step, frozen
from openmav.settings.interventions import parse
from openmav.view import View

NAME = "interventions"
DONE = ("ablate L5.H3", 'steer L8="love"-"hate"*4')
PIECES = {0: " the", 1: " own", 2: " art"}
INFO = make_info(6, 2)


def candidates(probs: dict[int, float], names: dict[int, str] | None = None) -> Candidates:
    ids = np.array(list(probs), dtype=np.int64)
    p = np.array(list(probs.values()), dtype=np.float32)
    return Candidates(frozen(ids), tuple((names or PIECES).get(i, f" t{i}") for i in probs), frozen(np.log(p)), frozen(p), frozen(p))


def touched(
    after: dict[int, float],
    before: dict[int, float],
    token_id: int = 0,
    lens: tuple[list[int], list[int]] | None = None,
    names: dict[int, str] | None = None,
) -> Step:
    """A step of a touched model; `lens` are the top tokens of the layers before and after."""
    tops = [None, None] if lens is None else [{"logit_lens.token_ids": np.array(ids)[:, None]} for ids in lens]
    was = Baseline(candidates(before, names), math.log(before[token_id]), 1.25, tops[0] or {}, PIECES)
    step = make_step(0, (names or PIECES)[token_id], INFO)
    return replace(
        step,
        token_id=token_id,
        candidates=candidates(after, names),
        entropy=2.5,
        logprob=math.log(after[token_id]),
        interventions=DONE,
        before=was,
        values={**step.values, **(tops[1] or {})},
        pieces=PIECES,
    )


def view_of(step: Step, **changes: object) -> View:
    return make_view([step], INFO, interventions=DONE, **changes)  # type: ignore[arg-type]


AFTER, BEFORE = {2: 0.5, 0: 0.25, 5: 0.125}, {0: 0.75, 2: 0.0625, 9: 0.2, 8: 0.01, 5: 0.125}


def test_what_is_done_stands_above_all_in_the_colour_of_a_warning() -> None:
    view = view_of(touched(AFTER, BEFORE))
    lines = panel(NAME).render(view, 70, 20)
    for spec, line in zip(DONE, lines):
        assert line[0].text.startswith(f"▾ {spec}")
        assert line[0].style.color.name == PALETTES["dark"].warning
        assert line[0].style.bold
    mono = panel(NAME).render(without_colour(view), 70, 20)
    assert mono[0][0].style.reverse
    assert draw(NAME, view, 40, 4)[0] == "▾ and 2 more"
    assert "2 active" in note(NAME, view)


def test_both_models_and_the_difference() -> None:
    rows = [row for row in draw(NAME, view_of(touched(AFTER, BEFORE)), 70, 20) if "%" in row and "→" not in row]
    read = [(row[2:].split()[0], *re.findall(r"<?[+-]?[\d.]+ (?:%|pp)", row)) for row in rows]
    assert read == [
        ("·the", "75.0 %", "25.0 %", "-50.0 pp"),
        ("·art", "6.2 %", "50.0 %", "+43.8 pp"),
        ("·t9", "20.0 %", "<12.5 %", "<-7.5 pp"),
        ("·t5", "12.5 %", "12.5 %", "0.0 pp"),
        ("·t8", "1.0 %", "<12.5 %"),
    ]
    assert [row[0] for row in rows] == ["●", " ", " ", " ", " "]
    assert rows[0].rstrip().endswith("│")
    assert "█" in rows[1].partition("│")[2]


@pytest.mark.parametrize("width", range(30, 100, 5))
def test_a_bound_of_a_large_change_does_not_touch_what_stands_before_it(width: int) -> None:
    step = touched({2: 0.998, 0: 0.001, 5: 0.0005}, {9: 0.99, 0: 0.005})
    rows = [row for row in draw(NAME, view_of(step), width, 20) if "%" in row]
    assert len(rows) >= 3
    assert [row for row in rows if re.search(r"%[^ …]", row)] == []


def test_the_bound_is_that_of_the_likely_ones_not_of_a_chosen_one_far_below() -> None:
    step = touched({2: 0.5, 5: 0.25, 0: 0.001}, {0: 0.75, 9: 0.2}, token_id=0)
    bound = next(row for row in rows_of(step, step.before) if row.token_id == 9)
    assert (bound.bound, bound.after) == (True, 0.25)


def test_entropies() -> None:
    assert draw(NAME, view_of(touched(AFTER, BEFORE)), 70, 20)[2] == "entropy 1.25 → 2.50 nats (+1.25) · ·the 75.0 % → 25.0 %"
    assert draw(NAME, view_of(touched(AFTER, BEFORE)), 36, 20)[2] == "entropy 1.25 → 2.50 nats (+1.25)"
    assert draw(NAME, view_of(touched(AFTER, BEFORE)), 24, 20)[2] == "H 1.25 → 2.50"


def test_layers_whose_lens_says_another_token() -> None:
    step = touched(AFTER, BEFORE, lens=([0, 1, 2, 2, -1, 0], [0, 1, 1, 2, -1, 2]))
    assert other_layers(step, step.before) == [(2, "·art", "·own"), (5, "·the", "·art")]
    rows = draw(NAME, view_of(step), 70, 20)
    assert rows[-3] == "lens: another top token in 2 of 6 layers: layers 2, 5"
    assert [row.split() for row in rows[-2:]] == [["5", "·the", "→", "·art"], ["2", "·art", "→", "·own"]]
    same = touched(AFTER, BEFORE, lens=([0] * 6, [0] * 6))
    assert draw(NAME, view_of(same), 70, 20)[-1] == "lens: another top token in 0 of 6 layers"


@pytest.mark.parametrize("lens", [None, "one"])
def test_without_both_lenses_nothing_is_said_of_them(lens: str | None) -> None:
    step = touched(AFTER, BEFORE, lens=([0] * 6, [1] * 6))
    step = replace(step, before=replace(step.before, values={})) if lens else touched(AFTER, BEFORE)
    assert not any("lens" in row for row in draw(NAME, view_of(step), 70, 20))


def test_where_nothing_is_done_it_says_how() -> None:
    view = make_view(3)
    assert "Click one to begin, or press a:" in " ".join(draw(NAME, view, 40, 9))
    assert note(NAME, view).startswith("none active")
    late = replace(view, interventions=DONE)
    rows = draw(NAME, late, 60, 9)
    assert rows[0] == "▾ ablate L5.H3"
    assert "from the next token on" in " ".join(rows)
    assert draw(NAME, replace(late, steps=(), cursor=-1), 60, 9)[0] == "▾ ablate L5.H3"


def test_numbers_that_are_not_finite_are_shown_as_such() -> None:
    nan = {2: math.nan, 0: math.nan}
    step = touched(AFTER, BEFORE)
    step = replace(step, entropy=math.nan, logprob=math.nan, candidates=candidates(nan))
    text = "\n".join(draw(NAME, view_of(step), 70, 20))
    assert "entropy 1.25 → NaN nats" in text
    assert re.search(r"·the +75.0 % +NaN", text)


@pytest.mark.parametrize("size", [*SIZES, (0, 0), (1, 1), (7, 1), (24, 5), (160, 45)])
@pytest.mark.parametrize("token", HOSTILE)
def test_any_box_and_any_token(size: tuple[int, int], token: str) -> None:
    names = dict.fromkeys((0, 1, 2, 5, 8, 9), token)
    view = view_of(touched(AFTER, BEFORE, lens=([0] * 6, [1] * 6), names=names))
    text = "".join(line.text for row in panel(NAME).render(view, *size) for line in row)
    assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs")], ascii(token)
    if size[0] >= 16:
        draw(NAME, view, *size)


def test_the_note_counts_what_is_hidden() -> None:
    view = view_of(touched(AFTER, BEFORE))
    assert "more" not in note(NAME, view, 70, 20)
    assert "2 more ▼" in note(NAME, view, 70, 6)
    shown = [row for row in draw(NAME, view, 70, 6) if "%" in row and "→" not in row]
    assert len(shown) == 3


def test_help_tells_a_newcomer_what_he_needs() -> None:
    for part in ("What it shows: ", "How to read it: ", "Formula: ", "Source: ", "What is normal: "):
        assert part in panel(NAME).HELP
    assert panel(NAME).NEEDS == ()
    assert len({s.style for row in panel(NAME).render(view_of(touched(AFTER, BEFORE)), 110, 30) for s in row}) <= 64
    assert make_steps(1)[0].before is None


def test_the_examples_exist_in_this_model() -> None:
    none = {"mlp_norm": {5: "no MLP"}, "attention_entropy": {4: "state space"}}
    info = make_info(6, 2, missing=none)
    for layer, heads, mlp in ((3, True, True), (4, False, True), (5, True, False)):
        view = replace(make_view([make_step(0, info=info)], info), layer=layer, head=1)
        specs = [row.removeprefix("▸ ").split("  ")[0] for row in draw(NAME, view, 100, 12) if row.startswith("▸")]
        parsed = [parse(spec) for spec in specs]
        assert [str(one) for one in parsed] == specs
        assert all(0 <= one.layer < 6 for one in parsed)
        assert any(one.site == "head" and (one.layer, one.index) == (layer, 1) for one in parsed) == heads
        assert any(one.site == "mlp" and one.layer == layer for one in parsed) == mlp


def test_what_is_active_needs_no_examples() -> None:
    view = make_view([make_step(0, info=INFO)], INFO, interventions=DONE)
    assert "from the next token on" in " ".join(draw(NAME, view, 60, 9))
    assert "Click" not in " ".join(draw(NAME, view, 60, 9))
    assert "▸" not in " ".join(draw(NAME, view, 60, 9))


@pytest.mark.parametrize("steps", [0, 3])
def test_a_click_on_an_example_begins_with_it_and_a_click_elsewhere_with_none(steps: int) -> None:
    view = make_view(steps)
    rows = draw(NAME, view, 40, 12)
    begun = [panel(NAME).pick(view, 40, 12, 1, y).starter for y in range(12)]
    written = [row.removeprefix("▸ ").split("  ")[0].strip() if row.startswith("▸") else "" for row in rows]
    assert begun == (written + [""] * 12)[:12]
    assert sum(map(bool, begun)) == 4
    assert panel(NAME).pick(view_of(touched(AFTER, BEFORE)), 40, 12, 1, 5).starter == ""
