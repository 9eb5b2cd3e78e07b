"""Where a head looks: in the panel and on the text."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from deep import deep_steps, rows_of
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_info, make_prompt, make_step, make_steps, with_values
from openmav.paint import PALETTES
from openmav.panels import needs
from openmav.panels.widgets.sequence import token_at
from openmav.plugins import registry
from openmav.view import View
from openmav.view.options import AppOptions

STRONGEST, STRONGEST_WITHOUT, ORDER, ORDER_WITHOUT, ALL = panel("attention_row").MODES
INFO = make_info(3, 2)
PROMPT = len(make_prompt().tokens)


def view_of(row: list[float], mode: str = STRONGEST, **changes: object) -> View:
    """A view of layer 2, head 1 with this row over the prompt and as many generated tokens as it needs."""
    count = max(1, len(row) - PROMPT + 1)
    rows = np.zeros((3, 2, len(row)))
    rows[2, 1] = row
    *before, last = (replace(make_step(at, info=INFO), position=PROMPT + at) for at in range(count))
    steps = [*before, with_values(last, attention_rows=rows)]
    return make_view(steps, INFO, head=1, modes={"attention_row": mode}, **changes)  # type: ignore[arg-type]


def listed(view: View, height: int = 40) -> list[tuple[int, str, float]]:
    rows = [re.match(r" *(\d+) (\S+) +<?([\d.]+) %", row) for row in draw("attention_row", view, 60, height)]
    return [(int(found[1]), found[2], float(found[3])) for found in rows if found]


def some_row(count: int) -> list[float]:
    """A row in which no share is too small to be written."""
    row = np.sqrt(rows_of(np.random.default_rng(3), 1, 1, count)[0, 0]) + 0.05
    return (row / row.sum()).tolist()


def test_shares_are_those_of_the_step_strongest_first() -> None:
    row = some_row(PROMPT + 5)
    view = view_of(row)
    shown = listed(view)
    assert [position for position, _, _ in shown] == np.argsort(-np.array(row), kind="stable").tolist()
    for position, token, share in shown:
        assert share == pytest.approx(row[position] * 100, abs=0.051)
        assert token_at(view, position).startswith(token.rstrip("…"))


def test_tokens_are_the_prompt_and_what_was_written() -> None:
    view = view_of(some_row(PROMPT + 5))
    assert token_at(view, 0) == "The"
    assert token_at(view, PROMPT - 1) == "·museums,"
    assert token_at(view, PROMPT) == view.steps[0].token.replace(" ", "·")
    assert token_at(view, 10**6) == "?"


def test_in_order() -> None:
    row = some_row(PROMPT + 2)
    assert [position for position, _, _ in listed(view_of(row, ORDER))] == list(range(PROMPT + 2))


@pytest.mark.parametrize("mode", [STRONGEST_WITHOUT, ORDER_WITHOUT])
def test_without_the_first_token_the_others_sum_to_one(mode: str) -> None:
    row = [0.6, 0.3, 0.1]
    shown = listed(view_of(row, mode))
    assert [(position, share) for position, _, share in shown] == [(1, 75.0), (2, 25.0)]
    assert "without the first token (60.0 %), scaled to 100 %" in note("attention_row", view_of(row, mode), 90, 20)
    assert "the first had 60.0 %" in note("attention_row", view_of(row, mode), 30, 20)
    assert "left out" in panel("attention_row").heading(view_of(row, mode), 44)


def test_what_goes_to_no_token_is_said() -> None:
    """To a learned sink, or to blocks of several tokens."""
    assert "40.0 % goes to no token" in note("attention_row", view_of([0.1, 0.2, 0.3]), 90, 20)
    assert "no token" not in note("attention_row", view_of([0.2, 0.5, 0.3]), 90, 20)


def test_all_on_the_first_token() -> None:
    assert [share for _, _, share in listed(view_of([1.0, 0.0, 0.0], STRONGEST_WITHOUT))] == [0.0, 0.0]


def test_what_does_not_fit_is_summed_up() -> None:
    row = sorted(some_row(PROMPT + 9), reverse=True)
    said = note("attention_row", view_of(row), 80, 4)
    assert f"4 of {len(row)} tokens" in said
    assert float(re.search(r"take <?([\d.]+) %", said)[1]) == pytest.approx(sum(row[4:]) * 100, abs=0.051)  # type: ignore[index]


def test_a_long_text_in_order_becomes_columns() -> None:
    row = [0.001] * 400
    row[250] = 1 - 0.399
    view = view_of(row, ORDER)
    rows = draw("attention_row", view, 50, 6)
    assert len(rows) == 6
    assert "400 tokens, 8 a column" in note("attention_row", view, 50, 6)
    assert "400 tokens, a column is the sum of 5" in note("attention_row", view, 80, 6)
    assert rows[0].rstrip().index("█") == 250 // 8
    assert "250 ·streets 60.1 % ▲" in rows[-1]
    assert rows[-1].index("▲") == 250 // 8
    assert "▲ 250 ·streets" in draw("attention_row", view, 100, 6)[-1]


def test_columns_are_wider_where_there_is_room() -> None:
    row = some_row(PROMPT + 20)
    row[PROMPT + 3] = 2.0
    view, width = view_of(row, ORDER), 3 * len(row) + 1
    rows = draw("attention_row", view, width, 6)
    assert re.sub(r"(.)\1\1", r"\1", rows[0]).strip() == "█"
    assert rows[0].index("█") == rows[-1].index("▲") == 3 * (PROMPT + 3)
    assert [panel("attention_row").pick(view, width, 6, 3 * (PROMPT + 3) + x, 0).cursor for x in range(3)] == [3, 3, 3]
    assert panel("attention_row").pick(view, width, 6, width - 1, 0) == view


def test_a_peak_at_the_right_end_is_named_to_its_left() -> None:
    row = [0.001] * 100
    row[99] = 0.9
    last = draw("attention_row", view_of(row, ORDER), 100, 6)[-1]
    assert last.endswith("▲")
    assert "99 " in last


def test_a_click_goes_to_a_generated_token() -> None:
    row = some_row(PROMPT + 5)
    view = view_of(row, ORDER)
    assert panel("attention_row").pick(view, 60, 40, 3, PROMPT + 2).cursor == 2
    assert panel("attention_row").pick(view, 60, 40, 3, 2) == view
    assert panel("attention_row").pick(view, 60, 40, 3, 39) == view


def test_a_layer_without_attention_says_why() -> None:
    info = make_info(3, 2, missing={"attention_rows": {2: "state space"}})
    view = make_view(deep_steps(2, info), info)
    assert draw("attention_row", view, 40, 5) == ["none: state space"]
    assert note("attention_row", view, 40, 5) == ""


# ---- on the text -----------------------------------------------------------------------------------------------------------


def backgrounds(view: View, width: int = 200) -> dict[str, str | None]:
    """{text: background} of the drawn text."""
    lines = panel("generated_text").render(view, width, 20)
    return {s.text: s.style.bgcolor.name if s.style and s.style.bgcolor else None for line in lines for s in line}


def coloured(row: list[float], **changes: object) -> View:
    return replace(view_of(row), modes={"generated_text": "attention"}, **changes)  # type: ignore[arg-type]


def test_the_text_is_coloured_by_where_the_head_looks() -> None:
    row = [0.0] * (PROMPT + 2)
    row[0], row[3], row[PROMPT] = 0.5, 0.4, 0.1
    view = coloured(row)
    found = backgrounds(view)
    tint = PALETTES[view.theme].surprise
    assert found[" France"] == tint[7], "the most of all but the first"
    assert found["The"] == tint[7], "clipped"
    assert found[view.steps[0].text] == tint[2], "a quarter of the most"
    assert found[" Paris."] is None
    assert "coloured by attention of layer 2 head 1 · first token 50.0 %" in note("generated_text", view, 100, 5)


def test_beside_the_attention_row_the_text_shows_the_same_head() -> None:
    row = [0.0] * (PROMPT + 2)
    row[0], row[3], row[PROMPT] = 0.5, 0.4, 0.1
    view = view_of(row)
    assert "coloured by surprisal" in note("generated_text", view, 100, 5)
    beside = replace(view, shown=frozenset({"generated_text", "attention_row"}))
    assert "coloured by attention of layer 2 head 1" in note("generated_text", beside, 100, 5)
    assert "coloured by entropy" in note("generated_text", replace(beside, modes={"generated_text": "entropy"}), 100, 5)
    without = replace(beside, steps=tuple(replace(step, values={}) for step in view.steps))
    assert "coloured by surprisal" in note("generated_text", without, 100, 5), "nothing to show of the head"


def test_the_text_is_coloured_by_the_mean_of_a_layers_heads() -> None:
    count, heads = PROMPT + 2, 3
    rows = np.zeros((4, heads, count), dtype=np.float32)
    rows[2, 0, 3], rows[2, 1, 3], rows[2, 2, PROMPT], rows[2, :, 0] = 0.6, 0.3, 0.9, (0.4, 0.7, 0.1)
    info = make_info(4, heads)
    steps = [make_step(at, info=info) for at in range(3)]
    view = make_view([*steps[:2], with_values(steps[2], attention_rows=rows)], info, layer=2, modes={"generated_text": "layer attention"})
    assert "coloured by attention of layer 2 · mean of 3 heads · first token 40.0 %" in note("generated_text", view, 120, 5)
    assert "then ·France 30.0 %, ·the 30.0 %" in note("generated_text", view, 120, 5)
    one = registry.load("panels", "generated_text").data(view)
    assert np.allclose(one.prompt_values, rows[2].mean(axis=0)[:PROMPT])
    assert one.values[0] == pytest.approx(0.3)


def test_a_head_that_only_other_layers_have_is_not_in_the_mean() -> None:
    rows = np.full((2, 3, PROMPT), np.nan, dtype=np.float32)
    rows[0], rows[1, :2] = 1 / PROMPT, 1 / PROMPT
    info = make_info(2, 3, layer_heads=(3, 2))
    view = make_view([with_values(make_step(0, info=info), attention_rows=rows)], info, modes={"generated_text": "layer attention"})
    assert "layer 1 · mean of 2 heads" in note("generated_text", view, 120, 5)
    broken = rows.copy()
    broken[1, 0, 2] = np.nan
    view = make_view([with_values(make_step(0, info=info), attention_rows=broken)], info, modes={"generated_text": "layer attention"})
    assert "no attention of layer 1 · NaN or infinity in a head" in note("generated_text", view, 120, 5)


def test_what_stands_for_hidden_text_has_no_colour() -> None:
    row = [0.0] * (PROMPT + 3)
    row[PROMPT - 1] = 1.0
    view = coloured(row, options=AppOptions(limit_chars=12))
    hidden = [text for text, background in backgrounds(view).items() if text.endswith("…") and background is None]
    assert len(hidden) == 1


def test_the_text_says_where_there_is_no_row() -> None:
    view = make_view(3, modes={"generated_text": "attention"})
    assert "not captured for this token" in note("generated_text", view, 100, 5)
    assert set(backgrounds(view).values()) <= {None, PALETTES[view.theme].text}


BARS = {*" ▁▂▃▄▅▆▇█"}


def test_the_text_reads_the_same_in_every_colouring() -> None:
    row = some_row(PROMPT + 5)
    for height in (6, 8):  # of 8 rows, some are bars above the text
        plain = [line for line in draw("generated_text", view_of(row), 40, height) if not set(line) <= BARS]
        for mode in ("entropy", "attention"):
            lines = draw("generated_text", replace(view_of(row), modes={"generated_text": mode}), 40, height)
            assert [line for line in lines if not set(line) <= BARS] == plain
        assert "France" in "".join(plain)


def test_the_text_is_coloured_by_entropy() -> None:
    steps = [make_step(0, " calm", entropy=0.4), make_step(1, " unsure", entropy=3.2), make_step(2, " lost", entropy=99.0), make_step(3)]
    view = make_view(steps, modes={"generated_text": "entropy"}, prompt=None)
    found = backgrounds(view)
    assert (found[" calm"], found[" unsure"], found[" lost"]) == (None, PALETTES[view.theme].surprise[4], PALETTES[view.theme].surprise[7])
    assert "coloured by entropy" in note("generated_text", view, 60, 5)


def test_without_colour_attention_is_weight() -> None:
    row = [0.0] * (PROMPT + 2)
    row[3], row[5] = 0.6, 0.4
    lines = panel("generated_text").render(without_colour(coloured(row)), 200, 4)
    styles = {segment.text: segment.style for line in lines for segment in line}
    assert styles[" France"].bold
    assert styles[" Paris."].underline
    assert not styles[" Paris."].bold


def test_rows_are_asked_for_only_where_they_are_drawn() -> None:
    assert "attention_rows" not in needs(["generated_text"])
    assert "attention_rows" in needs(["generated_text"], {"generated_text": "attention"})


def test_rows_that_are_no_longer_kept_are_said() -> None:
    view = view_of(some_row(PROMPT))
    assert view.step is not None
    values = {name: array for name, array in view.step.values.items() if name != "attention_rows"}
    old = make_view([replace(view.step, values=values, dropped=("attention_rows",))], INFO)
    assert draw("attention_row", old, 60, 5) == ["no longer kept for this token, to bound the memory"]
    assert "no longer kept" in note("generated_text", replace(old, modes={"generated_text": "attention"}), 100, 5)


# ---- all heads -------------------------------------------------------------------------------------------------------------


def test_all_heads_of_the_layer_are_rows_and_say_where_they_look() -> None:
    info = make_info(2, 12)
    rows = rows_of(np.random.default_rng(3), 2, 12, PROMPT + 20).astype(np.float32)
    view = make_view([*make_steps(20, info), with_values(make_step(20, info=info), attention_rows=rows)], info, layer=1, head=7)
    view = replace(view, modes={"attention_row": ALL})
    drawn = draw("attention_row", view, 120, 14)
    assert len(drawn) == 13, "the heads and an axis"
    assert [row.split()[0].strip("▸") for row in drawn[:12]] == [f"H{head}" for head in range(12)]
    assert drawn[7].startswith("▸H7")
    for head, row in enumerate(drawn[:12]):
        peak = int(np.argmax(rows[1, head]))
        assert f"{100 * rows[1, head, peak]:.1f} %" in row
        assert token_at(view, peak) in row
    lines = panel("attention_row").render(view, 120, 14)
    wide = 2
    for head in (0, 5, 11):
        cells = [s for s in lines[head] if s.style is not None and s.style.bgcolor is not None]
        found = [s.style.bgcolor.name for s in cells for _ in range(len(s.text) // wide)]
        shares = np.clip((np.log10(rows[1, head].astype(np.float64)) + 3) / 3, 0, 1)
        assert found == [PALETTES["dark"].heat[min(int(share * 16), 15)] for share in shares]
    picked = panel("attention_row").pick(view, 120, 14, 5 + wide * (PROMPT + 4), 3)
    assert (picked.head, picked.cursor) == (3, 4)
    assert panel("attention_row").pick(view, 120, 14, 5, 3).cursor == view.cursor, "a token of the prompt is no step"


def test_more_heads_than_rows_keep_the_selected_one_in_sight() -> None:
    info = make_info(1, 40)
    rows = rows_of(np.random.default_rng(4), 1, 40, PROMPT + 2).astype(np.float32)
    view = make_view([*make_steps(2, info), with_values(make_step(2, info=info), attention_rows=rows)], info, layer=0, head=33)
    view = replace(view, modes={"attention_row": ALL})
    assert any(row.startswith("▸H33") for row in draw("attention_row", view, 60, 9))
    assert "heads 29–36 of 40" in note("attention_row", view, 60, 9)


def test_heads_with_room_are_bars_scaled_to_all_but_the_first_token() -> None:
    info = make_info(1, 2)
    row = np.zeros((1, 2, PROMPT + 1), dtype=np.float32)
    row[0, 0, [0, 2, 4]] = 0.7, 0.2, 0.1
    row[0, 1, 3] = 1.0
    view = make_view([make_step(0, info=info), with_values(make_step(1, info=info), attention_rows=row)], info, layer=0, head=0)
    view = replace(view, modes={"attention_row": ALL})
    drawn = [row.ljust(100) for row in draw("attention_row", view, 100, 9)]
    assert len(drawn) == 9, "four rows a head, and an axis"
    heights = ["".join(drawn[y][4 + 4 * token] for y in range(4)).strip() for token in (0, 2, 4, 5)]
    assert heights == ["████", "████", "██", "▁"]
    assert "The" in drawn[0]
    assert "70.0 %" in drawn[0]
    assert panel("attention_row").pick(view, 100, 9, 40, 6).head == 1


def test_all_heads_stand_beside_the_list_or_below_it_where_there_is_room() -> None:
    info = make_info(3, 4)
    view = make_view(deep_steps(8, info), info, layer=1, head=2)
    step = view.step
    assert step is not None
    wide, high, small = draw("attention_row", view, 120, 14), draw("attention_row", view, 60, 24), draw("attention_row", view, 60, 12)
    assert "all heads of layer 1" in wide[0]
    assert re.match(r" *\d+ \S+", wide[0]), "the list begins beside the heading"
    start = next(at for at, row in enumerate(high) if row.startswith("all heads of layer 1"))
    for rows, x in ((wide, 48), (high[start:], 0)):
        named = [re.match(r" *▸?H(\d)", row[x:]) for row in rows]
        assert [int(one[1]) for one in named if one] == [0, 1, 2, 3]
    assert not any("all heads" in row for row in small)
    assert not any("all heads" in row for row in draw("attention_row", replace(view, maximised=True), 120, 14))
    assert panel("attention_row").pick(view, 60, 24, 1, start + 1).head == 0
    below = next(at for at, row in enumerate(high) if row.strip().startswith("H3"))
    assert panel("attention_row").pick(view, 60, 24, 1, below).head == 3
    assert panel("attention_row").pick(view, 60, 24, 1, 0).head == 2, "the list selects no head"
