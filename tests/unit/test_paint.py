"""Marks, numbers, safe text, lines and frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment

from fakes import HOSTILE
from openmav.apps.tui.widgets import text_input
from openmav.paint import (
    PALETTES,
    Edges,
    bar,
    cells,
    columns,
    fit,
    fit_line,
    heat_runs,
    ink,
    level,
    line_text,
    line_width,
    number,
    overlaid,
    pad_line,
    percent,
    pieces,
    printable,
    shares,
    tile,
    visible,
    wrap_words,
)
from openmav.paint.text import without_power
from openmav.system.terminal import escaped, has_power, neutral

UNSAFE = [
    *map(chr, range(0x20)),
    "\x7f",
    *map(chr, range(0x80, 0xA0)),
    *"\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]


def test_bar_counts_eighths() -> None:
    assert bar(0.5, 4) == "██"
    assert bar(1 / 32, 4) == "▏"
    assert bar(1.0, 3) == "███"
    assert bar(0.0, 3) == ""


def test_bar_leaves_a_trace_of_what_is_not_zero() -> None:
    assert bar(1e-9, 10) == "▏"


@given(st.floats(0, 1), st.integers(0, 60))
def test_bar_never_leaves_its_room(share: float, width: int) -> None:
    assert len(bar(share, width)) <= width


def test_shares_are_of_the_largest() -> None:
    assert shares([1, 2, 4]).tolist() == [0.25, 0.5, 1.0]
    assert shares([1, 2, 5], "minmax").tolist() == [0, 0.25, 1.0]
    assert shares([0, math.e - 1, math.e**2 - 1], "log") == pytest.approx([0, 0.5, 1.0])


def test_shares_of_what_is_not_finite_are_zero() -> None:
    assert shares([math.nan, 2, math.inf]).tolist() == [0, 1, 0]
    assert shares([math.nan]).tolist() == [0]
    assert shares([0, 0]).tolist() == [0, 0]


def test_two_bars_in_one() -> None:
    assert overlaid(0.5, 0.25, 8) == ("██", "", "░░")
    assert overlaid(0.25, 0.5, 8) == ("██", "▒▒", "")
    assert overlaid(0.5, 0.5, 8) == ("████", "", "")
    assert overlaid(0.01, 0.0, 8) == ("", "", "░"), "what was cut leaves a trace"
    assert overlaid(0.0, 0.0, 8) == ("", "", "")


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 60))
def test_two_bars_in_one_never_leave_their_room(before: float, after: float, width: int) -> None:
    both, gained, lost = overlaid(before, after, width)
    assert len(both + gained + lost) <= width
    assert both == bar(min(before, after), width)
    assert not (gained and lost)


def test_columns_rise_from_below() -> None:
    assert columns([0.0, 0.5, 1.0], 2) == ["  █", "▁██"]


def test_heat_runs_merge_neighbours() -> None:
    assert heat_runs([1, 1, 2, 1]) == [(1, 2), (2, 1), (1, 1)]


def test_level_covers_the_ramp() -> None:
    assert [level(share, 4) for share in (0, 0.3, 0.99, 1.0)] == [0, 1, 3, 3]


def test_numbers_keep_their_decimals() -> None:
    assert number(412.06, 1, 7) == "  412.1"
    assert number(math.nan, 1, 5) == "  NaN"
    assert number(-math.inf, 1, 5) == " -inf"


def test_a_number_that_is_too_long_never_loses_whole_digits() -> None:
    assert number(12345.6, 1, 5) == "12346"
    assert number(1234567.0, 1, 5) == "1.2e6"


@pytest.mark.parametrize(
    ("value", "text"), [(0.412, " 41.2 %"), (1.0, "100.0 %"), (0.0, "  0.0 %"), (1e-5, " <0.1 %"), (math.nan, "    NaN")]
)
def test_percent_takes_seven_cells(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize("char", UNSAFE)
def test_no_control_or_direction_character_survives(char: str) -> None:
    for shown in (printable(f"a{char}b"), visible(f"a{char}b")):
        assert char == "\n" or char not in shown
        assert len(shown) >= 3, "it is shown as a symbol"


def test_what_has_power_over_a_terminal_gets_through_no_sanitiser() -> None:
    powers = [char for char in map(chr, range(0x110000)) if has_power(char)]
    assert set(UNSAFE) <= set(powers)
    for show in (neutral, escaped, printable, visible, without_power, text_input.visible):
        kept = "\n\t" if show is neutral else "\n" if show is printable else ""
        assert [char for char in powers if char in show(f"a{char}b") and char not in kept] == [], show
    assert all(len(text_input.visible(char)) == 1 for char in powers), "the cursor of an input line counts on it"


@given(st.lists(st.text(st.sampled_from("ab日é"), min_size=1, max_size=9)), st.integers(2, 12))
def test_words_are_wrapped_within_their_room_and_none_is_lost(words: list[str], width: int) -> None:
    rows = wrap_words(" ".join(words), width)
    assert all(0 < cells(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == "".join(words)


@given(st.text())
def test_visible_text_is_never_empty_and_holds_only_what_can_be_shown(text: str) -> None:
    shown = visible(text)
    assert cells(shown) > 0
    assert not set(UNSAFE) & set(shown)


@given(st.text(), st.integers(1, 40))
def test_fit_takes_exactly_its_room(text: str, width: int) -> None:
    assert cells(fit(visible(text), width)) == width


def test_candidates_show_their_spaces() -> None:
    assert visible(" art") == "·art"
    assert visible("\n") == "⏎"
    assert visible("\t") == "⇥"
    assert visible("") == "∅"
    assert visible("\u202e") == "⟨202E⟩"
    assert visible("\x1b[2J") == "<ESC>[2J"
    assert [visible(char) for char in "\0\a\r\x1f\x7f"] == ["<NUL>", "<BEL>", "<CR>", "<US>", "<DEL>"]
    assert visible("\u0301") == "◌\u0301"


def test_fit_cuts_wide_characters_whole() -> None:
    assert fit("日本語", 4) == "日… "
    assert fit("ab", 4, ">") == "  ab"


def test_pieces_keep_marks_on_their_letters() -> None:
    assert list(pieces("e\u0301a")) == ["e\u0301", "a"]


def test_lines_are_cut_and_padded() -> None:
    line = [Segment("日本")]
    assert line_text(fit_line(line, 3)) == "日 "
    assert line_width(fit_line(line, 9)) == 9
    assert line_text(pad_line([Segment("a")], [Segment("b")], 4)) == "a  b"
    assert line_text(pad_line([Segment("abcd")], [Segment("b")], 4)) == "abcd"


def frame_text(width: int, edges: Edges, note: str = "") -> list[str]:
    return [line_text(line) for line in tile([[Segment("x")]], width, 3, PALETTES["dark"], "Title", note, edges=edges)]


def test_a_frame() -> None:
    assert frame_text(20, Edges(), "a note · long one") == ["╭─ Title ──────────╮", "│ x                │", "╰───────── a note ─╯"]


def test_neighbours_share_a_frame() -> None:
    left, right = frame_text(14, Edges(right_open=True)), frame_text(14, Edges(left_open=True))
    joined = [a + b for a, b in zip(left, right)]
    assert joined == ["╭─ Title ─────── Title ────╮", "│ x            x           │", "╰" + "─" * 26 + "╯"]


@pytest.mark.parametrize("size", [(1, 1), (7, 2), (8, 3), (12, 1)])
def test_a_frame_fits_any_box(size: tuple[int, int]) -> None:
    lines = tile([[Segment("some text")]] * 5, *size, PALETTES["dark"], "A long title", "a note")
    assert len(lines) == size[1]
    assert {line_width(line) for line in lines} == {size[0]}


@pytest.mark.parametrize("token", HOSTILE)
def test_a_hostile_token_in_a_frame_keeps_its_width(token: str) -> None:
    lines = tile([[Segment(visible(token))]], 30, 3, PALETTES["dark"], visible(token), visible(token))
    assert {line_width(line) for line in lines} == {30}


def test_styles_are_cached_and_plain_without_colour() -> None:
    assert ink(PALETTES["dark"], "mlp") is ink(PALETTES["dark"], "mlp")
    plain = ink(PALETTES["mono"], "accent", "select", bold=True)
    assert plain.color is None
    assert plain.bgcolor is None
    assert plain.reverse


def test_heat_ramps_grow_lighter() -> None:
    heat = PALETTES["dark"].heat
    light = [sum(int(colour[i : i + 2], 16) * w for i, w in ((1, 0.299), (3, 0.587), (5, 0.114))) for colour in heat]
    assert np.all(np.diff(light) > 0)
    assert len(heat) <= 64
