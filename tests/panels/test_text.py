"""The text panel: wrap, limits, marks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drawing import draw, make_view, note, panel
from hypothesis import given
from hypothesis import strategies as st

from fakes import HOSTILE, make_info, make_prompt, make_step, make_steps, with_values
from openmav.paint import PALETTES
from openmav.paint.wrap import _wrapped, wrap
from openmav.protocol.snapshot import Snapshot
from openmav.record import Prompt
from openmav.view import View
from openmav.view.options import AppOptions


def written(*tokens: str, **changes: object) -> View:
    return make_view([make_step(i, token) for i, token in enumerate(tokens)], **changes)  # type: ignore[arg-type]


def test_prompt_and_text_read_as_one() -> None:
    rows = draw("generated_text", written(" the", " river"), 30, 6)
    assert rows == ["The capital of France is", "Paris. The city is known for", "its museums, the river"]


def test_words_are_not_broken_and_long_ones_are() -> None:
    view = replace(written("a" * 25, " bb"), prompt=None)
    assert draw("generated_text", view, 11, 6) == ["a" * 10, "a" * 10, "aaaaa bb"]


@given(st.lists(st.text(), max_size=20), st.integers(4, 30))
def test_the_wrap_loses_nothing_but_spaces(texts: list[str], width: int) -> None:
    from openmav.paint import printable

    chunks = [(printable(text), at) for at, text in enumerate(texts)]
    rows = wrap(chunks, width)
    assert all(sum(glyph.width for glyph in row) <= width for row in rows)
    shown = "".join(glyph.text for row in rows for glyph in row)
    assert shown.replace(" ", "") == "".join(text for text, _ in chunks).replace("\n", "⏎").replace(" ", "")


def test_written_lines_stay_where_they_are() -> None:
    before = draw("generated_text", make_view(60), 40, 12)
    after = draw("generated_text", make_view(61), 40, 12)
    assert after[: len(before) - 1] == before[:-1]


def test_text_that_grows_is_wrapped_as_if_it_had_been_there_at_once() -> None:
    texts = [("The wrap of a long text ", " is kept in blocks", "\n", "x" * 41, " ", "日本語", "é", "  two  ")[at % 8] for at in range(160)]
    for width in (4, 11, 40, 96):
        for count in range(1, len(texts), 13):
            chunks = [(text, at) for at, text in enumerate(texts[:count])]
            (*whole, last) = wrap(chunks, width)
            at_once, unfinished = _wrapped.__wrapped__(tuple(chunks), (), max(width - 1, 2))
            assert (tuple(whole), last) == (at_once, unfinished)


def test_wide_characters() -> None:
    assert draw("generated_text", replace(written("日本語", "日本語"), prompt=None), 8, 3) == ["日本語", "日本語"]


def test_a_newline_is_seen_and_breaks() -> None:
    assert draw("generated_text", replace(written("a", "\n", "b"), prompt=None), 20, 3) == ["a⏎", "b"]


def test_a_split_character_appears_once() -> None:
    steps = [make_step(0, "\ufffd", text=""), make_step(1, "\ufffd", text="é"), make_step(2, " x")]
    assert draw("generated_text", make_view(steps, prompt=None), 20, 3) == ["é x"]


def test_the_newest_token_is_marked_even_without_text() -> None:
    steps = [make_step(0, "a"), make_step(1, "\ufffd", text="")]
    assert draw("generated_text", make_view(steps, prompt=None), 20, 3) == ["a…"]


def test_a_special_token_is_named() -> None:
    steps = [make_step(0, "a"), make_step(1, "<|end|>", text="", special=True)]
    assert draw("generated_text", make_view(steps, prompt=None), 20, 3) == ["a<|end|>"]


def test_markup_is_text() -> None:
    view = replace(written("[bold]", "[/]", "[@click=app.bell]x[/]"), prompt=None)
    assert draw("generated_text", view, 40, 2) == ["[bold][/][@click=app.bell]x[/]"]


def test_the_limit_counts_generated_characters_only() -> None:
    view = written(" one", " two", " three", options=AppOptions(limit_chars=10))
    text = draw("generated_text", view, 120, 3)[0]
    assert text.strip() == "… two three"
    assert "▲" in note("generated_text", view, 120, 3)
    assert draw("generated_text", written(" one", options=AppOptions(limit_chars=10)), 120, 3)[0].endswith("museums, one")


def test_no_limit() -> None:
    steps = make_steps(150)
    text = "".join(draw("generated_text", make_view(steps, options=AppOptions(limit_chars=0)), 100, 12))
    assert text.startswith("The capital of France")


def test_going_back_far_brings_the_token_into_sight() -> None:
    view = make_view(make_steps(600)).at_step(2)
    lines = panel("generated_text").render(view, 40, 6)
    assert view.step is not None
    marked = [s.text for line in lines for s in line if s.style and s.style.bgcolor and s.style.bgcolor.name == PALETTES["dark"].text]
    assert "".join(marked).strip() == view.step.token.strip()


def test_a_click_goes_to_the_token() -> None:
    view = replace(written("ab", "cd", "ef"), prompt=None)
    assert panel("generated_text").pick(view, 20, 3, 2, 0).cursor == 1
    assert panel("generated_text").pick(view, 20, 3, 9, 0) == view
    assert not panel("generated_text").pick(view, 20, 3, 2, 0).following


def test_every_hostile_token_shows() -> None:
    for token in HOSTILE:
        view = replace(written("x", token, "y"), prompt=None)
        row = "".join(draw("generated_text", view, 60, 4))
        assert row.startswith("x")
        assert row.endswith("y")
        if token.strip("\u200d\ufe0f") and token.isprintable():
            assert len(row) > 2


def test_before_the_first_token() -> None:
    now = Snapshot(version=1, status="loading", progress="reading weights", fraction=0.25)
    rows = draw("generated_text", View().updated(now), 40, 5)
    assert rows[0] == "reading weights"
    assert rows[1].count("━") == 8
    assert "25 %" in rows[1]


def test_the_prompt_shows_while_it_is_read() -> None:
    now = Snapshot(version=1, status="prefill", prompt=Prompt("Once upon", (1, 2), ("Once", " upon")))
    assert draw("generated_text", View().updated(now), 40, 5) == ["Once upon", "reading the prompt"]


def test_every_token_of_a_hit_is_marked_and_nothing_else() -> None:
    view = replace(written("a", " ri", "ver", " x", " RIVER", " riv"), search="river")
    for palette in ("dark", "light", "mono"):
        rows = panel("generated_text").render(replace(view, theme=palette, prompt=None, cursor=3), 40, 4)
        marked = "".join(segment.text for row in rows for segment in row if segment.style.underline and segment.style.bold)
        assert marked == " river RIVER"
    assert "'river' marked" in note("generated_text", view)
    assert "marked" not in note("generated_text", replace(view, search="zebra"))


def chosen(count: int = 60, row: int = 2, **changes: object) -> View:
    return replace(make_view(count).at_candidate(row), **changes)  # type: ignore[arg-type]


def test_the_candidates_open_over_the_text_while_one_is_selected_and_no_other_panel_shows_them() -> None:
    rows = draw("generated_text", chosen(), 70, 20)
    (top,) = [row for row in rows if "╭─ in place of" in row]
    assert any(f"▸ ·{words_of(chosen())[2]}" in row for row in rows)
    assert top.index("╭") > 0
    assert not any("╭" in row for row in draw("generated_text", make_view(60), 70, 20))
    for other in ("top_predictions", "token_card"):
        assert not any("╭" in row for row in draw("generated_text", chosen(shown=frozenset({other})), 70, 20))


def words_of(view: View) -> list[str]:
    assert view.step is not None
    return [token.strip() for token in view.step.candidates.tokens]


def test_the_popover_keeps_to_its_panel_and_leaves_the_token_in_sight() -> None:
    whole = make_view(60)
    for width in range(8, 100, 7):
        for height in range(1, 30, 3):
            for cursor in (0, 20, 59):
                view = whole.at_step(cursor).at_candidate(5)
                rows = draw("generated_text", view, width, height)
                assert len(rows) <= height
                if any("╭" in row for row in rows):
                    segments = [one for row in panel("generated_text").render(view, width, height) for one in row]
                    token = view.step.token.strip()  # type: ignore[union-attr]
                    assert any(one.style is not None and one.style.bold and token in one.text for one in segments)


def test_a_click_in_the_popover_selects_a_candidate_and_beside_it_a_token() -> None:
    view = chosen()
    rows = draw("generated_text", view, 70, 20)
    y = next(y for y, row in enumerate(rows) if "▸" in row)
    x = rows[y].index("▸")
    assert panel("generated_text").pick(view, 70, 20, x + 2, y + 1).candidate == 3
    assert panel("generated_text").pick(view, 70, 20, 1, 2).cursor != view.cursor
    frame = panel("generated_text").pick(view, 70, 20, x - 2, y)
    assert (frame.candidate, frame.cursor) == (2, view.cursor)


def test_where_there_is_room_each_token_has_a_bar_of_its_surprisal() -> None:
    nats = (0.0, 2.0, 4.0, 20.0, float("nan"))
    steps = [replace(make_step(at, f" w{at}"), logprob=-one) for at, one in enumerate(nats)]
    view = replace(make_view(steps), prompt=None)
    rows = draw("generated_text", view, 60, 20)
    assert len(rows) == 6
    assert rows[5] == " w0 w1 w2 w3 w4"
    columns = ["".join(row.ljust(15)[1 + 3 * at] for row in rows[:5]) for at in range(5)]
    full = [sum("▁▂▃▄▅▆▇█".find(char) + 1 for char in column) for column in columns]
    assert full[:4] == [1, 10, 20, 40]  # eighths of 5 rows; all of them from 8 nats on
    assert columns[4] == "!" * 5 or full[4] == 40
    assert all(row.ljust(15)[0] == " " for row in rows[:5]), "no bar over a space"
    assert "a full bar: 8 nats" in note("generated_text", view, 60, 20)
    assert panel("generated_text").pick(view, 60, 20, 4, 1).cursor == 1, "a click on a bar is one on its token"
    assert "a full bar" not in note("generated_text", view, 60, 6)


def test_bars_stay_until_the_text_needs_their_rows() -> None:
    heights, steps = [], make_steps(400)
    for count in range(1, 400, 21):
        rows = draw("generated_text", make_view(steps[:count]), 60, 22)
        words = [at for at, row in enumerate(rows) if any(char.isalpha() for char in row)]
        heights.append(words[-1] - words[-2] if len(words) > 1 else 6)
    assert heights == sorted(heights, reverse=True), "text that grows only ever moves closer together"
    assert {heights[0], heights[-1]} == {6, 1}


def test_bars_of_attention_are_shares_of_the_most() -> None:
    info = make_info(2, 2)
    steps = make_steps(6, info)
    length = len(make_prompt().tokens) + 5
    row = np.full((2, 2, length), 0.1)
    row[1, 0, -1] = 0.4
    steps = (*steps[:-1], with_values(steps[-1], attention_rows=row))
    view = make_view(steps, info, modes={"generated_text": "attention"}, layer=1, head=0)
    rows = draw("generated_text", view, 70, 20)
    assert "a full bar: 40.0 %" in note("generated_text", view, 70, 20)
    assert ["█" in one for one in rows[-6:-1]] == [True] * 5, "the last token that was read has all of the rows"
    assert not any("█" in one for one in rows[:4]), "a quarter of the most has a quarter of them"
