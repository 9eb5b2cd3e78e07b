"""The logit lens of one token, and of many side by side."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from deep import deep_steps
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_info, make_step, with_values
from openmav.paint import PALETTES
from openmav.panels.widgets.lens import lens_of, mark, piece, summary
from openmav.record import Step
from openmav.view import View

NAMES = {1: " the", 2: " own", 3: " art", 4: "\n"}


def lens_step(tops: list[int], probs: list[float] | None = None, token_id: int = 3, index: int = 0) -> Step:
    """A step whose layers have these top tokens; the second of each is token 4."""
    first = probs or [(at + 1) / (len(tops) + 1) for at in range(len(tops))]
    ids = np.array([[top, 4 if top >= 0 else -1] for top in tops])
    values = {"logit_lens": np.array([[p, p / 4] for p in first]), "logit_lens.token_ids": ids}
    step = with_values(make_step(index, NAMES.get(token_id, "?"), make_info(len(tops), 2)), **values)
    return replace(step, token_id=token_id, pieces=NAMES)


def view_of(*steps: Step, layers: int | None = None, **changes: object) -> View:
    return make_view(list(steps), make_info(layers or len(steps[0].values["logit_lens"]), 2), **changes)  # type: ignore[arg-type]


# ---- where the answer appears and stays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tops", "marks", "words"),
    [
        ([1, 2, 2, 3, 3], "   ◆│", "·art stays from layer 3"),
        ([1, 3, 2, 3, 2, 3, 3], " ◇ ◦ ◆│", "·art first at layer 1, stays from layer 5"),
        ([3, 3], "◆│", "·art stays from layer 0"),
        ([2, 1, 3], "  ◆", "·art stays from layer 2"),
        ([1, 3, -1, 3], " ◆ │", "·art stays from layer 1"),
        ([-1, -1], "  ", ""),
    ],
)
def test_marks_follow_the_answer(tops: list[int], marks: str, words: str) -> None:
    step = lens_step(tops)
    lens = lens_of(step)
    assert lens is not None
    assert "".join(mark(lens, layer) for layer in range(len(tops))) == marks
    assert (summary(piece(step, lens.answer), lens.first, lens.stable) if lens.answer >= 0 else "") == words


def test_no_lens() -> None:
    assert lens_of(make_step(0)) is None


# ---- one token -------------------------------------------------------------------------------------------------------------


def test_numbers_and_tokens_are_the_steps() -> None:
    view = make_view(deep_steps(5))
    step = view.step
    assert step is not None
    for row in draw("logit_lens", view, 60, 30):
        layer, token, p = re.match(r"[▸ ]*(\d+) +[◇◆│◦ ] (\S+) .* ([\d.]+) %$", row).groups()  # type: ignore[union-attr]
        top = int(step.values["logit_lens.token_ids"][int(layer), 0])
        assert token == step.pieces[top].replace(" ", "·")
        assert float(p) == pytest.approx(step.values["logit_lens"][int(layer), 0] * 100, abs=0.051)


def test_a_wide_panel_shows_more_tokens_of_each_layer() -> None:
    view = make_view(deep_steps(5))
    step = view.step
    assert step is not None
    row = draw("logit_lens", view, 150, 30)[0]
    numbers = [float(text) for text in re.findall(r"([\d.]+) %", row)]
    assert len(numbers) > 3
    assert numbers == pytest.approx(step.values["logit_lens"][29, : len(numbers)] * 100, abs=0.051)


def test_the_note_says_where_it_stays_and_what_was_chosen_instead() -> None:
    assert note("logit_lens", view_of(lens_step([1, 2, 3])), 80, 5) == "·art stays from layer 2"
    assert "chosen: ·own" in note("logit_lens", view_of(lens_step([1, 2, 3], token_id=2)), 80, 5)
    assert note("logit_lens", view_of(lens_step([1, 3, 2, 3])), 30, 5) == "first 1, stays from 3"


def test_the_chosen_token_is_amber() -> None:
    view = view_of(lens_step([1, 2, 3]))
    top, below, *_ = panel("logit_lens").render(view, 60, 3)

    def amber(line: list) -> bool:
        return any("·" in s.text and s.style and s.style.color and s.style.color.name == PALETTES[view.theme].accent for s in line)

    assert amber(top)
    assert not amber(below)


def test_an_unknown_token_has_its_number() -> None:
    assert "#77" in draw("logit_lens", view_of(replace(lens_step([77, 3]), pieces={3: " art"})), 60, 2)[1]


# ---- many tokens -----------------------------------------------------------------------------------------------------------


def grid(**changes: object) -> View:
    """Three tokens of three layers; the first has no lens."""
    return view_of(
        make_step(0, " none", make_info(3, 2)),
        lens_step([1, 2, 2], index=1, token_id=2),
        lens_step([3, 1, 4], index=2, token_id=4),
        layers=3,
        **changes,
    )


def test_a_cell_is_the_top_token_of_its_layer() -> None:
    rows = draw("lens_map", grid(), 60, 3)
    assert [row.split()[-2:] for row in rows] == [["│·own", "◆⏎"], ["◆·own", "·the"], ["·the", "·art"]]
    assert "1 without a lens" in note("lens_map", grid(), 120, 3)


def test_colours_follow_the_probability() -> None:
    view = grid()
    lens = view.steps[1].values["logit_lens"]
    for at, line in enumerate(panel("lens_map").render(view, 60, 3)):
        found = next(s for s in line if "·own" in s.text or ("·the" in s.text and at == 2))
        share = float(lens[2 - at, 0])
        assert found.style is not None
        assert found.style.bgcolor is not None
        assert found.style.bgcolor.name == PALETTES[view.theme].heat[min(int(share * 16), 15)]


def test_without_colour_a_glyph_says_how_likely() -> None:
    view = without_colour(view_of(lens_step([1, 2, 3], [0.05, 0.5, 1.0])))
    assert [row[4:].strip() for row in draw("lens_map", view, 14, 3)] == ["◆█·art", "▒·own", "·the"]


def test_the_written_text_stands_below_where_there_is_room() -> None:
    assert draw("lens_map", grid(), 60, 4)[3].split() == ["·none", "·own", "⏎"]
    assert len(draw("lens_map", grid(), 60, 3)) == 3


def test_the_edge_says_what_the_selected_cell_holds() -> None:
    view = make_view(deep_steps(30), layer=12).at_step(20)
    step = view.step
    assert step is not None
    top = int(step.values["logit_lens.token_ids"][12, 0])
    expected = f"layer 12: {step.pieces[top].replace(' ', '·')} {step.values['logit_lens'][12, 0] * 100:.1f} %"
    assert expected in note("lens_map", view, 150, 30)


def test_compact_cells_show_more_tokens() -> None:
    view = make_view(deep_steps(30))
    wide = note("lens_map", view, 60, 30)
    assert "◂ 25–29 of 30 tokens" in wide
    compact = view.in_next_mode("lens_map", panel("lens_map").MODES)
    assert "◂ 3–29 of 30 tokens" in note("lens_map", compact, 60, 30)
    assert draw("lens_map", without_colour(compact), 60, 30)[0].strip("▸29 ")


def test_a_click_goes_to_layer_and_token() -> None:
    view = make_view(deep_steps(30))
    picked = panel("lens_map").pick(view, 60, 30, 5 + 11 + 3, 4)
    assert (picked.layer, picked.cursor, picked.following) == (25, 26, False)


def test_going_back_brings_the_column_into_sight() -> None:
    view = make_view(deep_steps(60)).at_step(3)
    assert "token 3:" in note("lens_map", view, 110, 30)
    assert "0–" in note("lens_map", view, 110, 30)


def test_a_model_without_a_lens_says_why() -> None:
    info = make_info(3, 2, missing={"logit_lens": dict.fromkeys(range(3), "the head can't be used")})
    view = make_view(deep_steps(2, info), info)
    assert all("none: the head can't be used" in row for row in draw("logit_lens", view, 60, 3))
    assert "layer 2: none: the head can't be used" in note("lens_map", view, 120, 3)
    assert note("logit_lens", view, 80, 3) == ""
