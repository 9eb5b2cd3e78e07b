"""The panel of watches, and the mark of breakpoints on the timeline: values are those of the language, in any box."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from drawing import SIZES, draw, make_view, note, panel, without_colour

from everything import spoilt, whole_steps
from fakes import HOSTILE, make_info, make_step, make_steps
from openmav.conditions import parse
from openmav.panels import needs
from openmav.panels.widgets import watched as watched_module
from openmav.panels.widgets.watched import value_at, watched
from openmav.view import View

INFO = make_info(6, 4)
STEPS = whole_steps(40, INFO)
BREAKS = ("entropy > 4", "lens[2] != lens[-1]", "nan", "norm(mlp, 9) > 1")
WATCHES = ("norm(mlp, 3)", "lens[2]", 'prob("the")', "entropy > 4", "forced")


def view_of(**changes: object) -> View:
    return make_view(STEPS, INFO, breakpoints=BREAKS, watches=WATCHES, **changes)


def test_each_row_says_its_value_at_the_shown_token() -> None:
    view = view_of().at_step(7)
    rows = draw("watches", view, 110, 12)
    assert len(rows) == len(BREAKS) + len(WATCHES) - 1  # what is both is a breakpoint
    step = STEPS[7]
    top = step.pieces[int(step.values["logit_lens.token_ids"][2, 0])]
    assert f"{step.entropy:.2f}" in rows[0]
    assert rows[0].startswith("◉ " if step.entropy > 4 else "○ ")
    assert "this model has no such layer: it has 0 to 5" in rows[3]
    assert f"{step.values['mlp_norm'][3]:.1f}" in rows[4]
    assert f'"{top}"' in rows[5]
    assert rows[7].startswith("· forced")
    assert " no " in rows[7]


def test_the_strip_has_a_tall_column_where_it_held() -> None:
    rows = draw("watches", view_of(), 110, 12)
    strip = rows[0].split()[-1]
    assert strip == "".join("▆" if step.entropy > 4 else "▁" for step in STEPS)[-len(strip) :]
    assert len(strip) == 40


def test_a_click_on_the_strip_goes_to_the_token() -> None:
    view = view_of()
    row = draw("watches", view, 110, 12)[0]
    first = len(row) - 40
    assert panel("watches").pick(view, 110, 12, first + 13, 0).cursor == 13
    assert panel("watches").pick(view, 110, 12, 0, 0) is view


def test_what_the_reader_set_is_needed_and_nothing_else() -> None:
    assert needs(["watches"], {}, view_of()) == {"logit_lens", "mlp_norm"}
    assert needs(["watches"]) == needs(["watches"], {}, View()) == frozenset()


def test_nothing_watched_says_which_key() -> None:
    assert "The key k sets breakpoints and watches" in " ".join(draw("watches", make_view(3), 110, 9))


@pytest.mark.parametrize("size", [*SIZES, (0, 0), (1, 1), (7, 2), (14, 1), (23, 4)])
@pytest.mark.parametrize("steps", [0, 1, 40])
def test_any_box(size: tuple[int, int], steps: int) -> None:
    for view in (make_view(STEPS[:steps], INFO, breakpoints=BREAKS, watches=WATCHES), View(breakpoints=BREAKS), without_colour(view_of())):
        draw("watches", view, *size)
        note("watches", view, *size)
        panel("watches").heading(view, size[0])


def test_no_token_and_no_condition_breaks_a_row() -> None:
    for token in HOSTILE:
        step = make_step(0, token, INFO)
        text = "".join(draw("watches", make_view([step], INFO, watches=("token", 'token == "\x1b[31m\n"')), 60, 4))
        assert text.isprintable(), ascii(token)


def test_a_broken_model_is_flagged() -> None:
    view = make_view([*STEPS[:3], spoilt(replace(STEPS[3]))], INFO, watches=("norm(mlp, 3)", "nan"))
    rows = draw("watches", view, 80, 4)
    assert "NaN" in rows[0]
    assert rows[0].endswith("!")
    assert rows[1].startswith("● nan")


def test_a_value_is_worked_out_once_and_a_step_made_again_anew() -> None:
    condition = parse("entropy")
    steps = list(STEPS[:3])
    assert value_at(condition, steps, INFO, 2) == steps[2].entropy
    steps[2] = replace(steps[2], entropy=9.0)
    assert value_at(condition, steps, INFO, 2) == 9.0


@pytest.mark.parametrize("text", ["previous(norm(mlp, 3))", "entropy > previous(previous(norm(mlp, 3)))"])
def test_a_value_follows_the_earlier_steps_that_it_reads(text: str) -> None:
    condition, steps = parse(text), list(STEPS[:6])
    for index in range(6):
        value_at(condition, steps, INFO, index)
    steps[3] = replace(steps[3], values={**steps[3].values, "mlp_norm": steps[3].values["mlp_norm"] * 0})
    for index in range(6):
        assert value_at(condition, steps, INFO, index) == condition.value(steps[index], INFO, steps)


def test_values_hold_no_step_that_is_gone() -> None:
    steps, texts = list(make_steps(300, INFO, seed=11)), ("entropy", "previous(entropy)", "text")
    dropped = [weakref.ref(step) for step in steps]
    for text in texts:
        for index in range(300):
            value_at(parse(text), steps, INFO, index)
    before = len(watched_module._values)
    del steps[100:]
    gc.collect()
    assert [ref() for ref in dropped[100:]] == [None] * 200
    assert len(watched_module._values) == before - 200


def test_the_timeline_marks_where_a_breakpoint_holds() -> None:
    view = make_view(STEPS[:20], INFO, breakpoints=("entropy > 4", "forced"))
    marks = draw("timeline", view, 60, 5)[-1]
    held = [at for at, step in enumerate(STEPS[:20]) if step.entropy > 4]
    assert [at for at, sign in enumerate(marks) if sign == "◉"] == [3 * at for at in held], "several cells a token while there is room"
    narrow = draw("timeline", view, 30, 5)[-1]
    assert [at for at, sign in enumerate(narrow) if sign == "◉"] == held
    at = held[0]
    assert "breakpoint hit: entropy > 4" in note("timeline", view.at_step(at), 120, 5)
    assert "◉" not in "".join(draw("timeline", make_view(STEPS[:20], INFO, watches=("entropy > 4",)), 60, 5))


def test_help_tells_a_newcomer_what_he_needs() -> None:
    for part in ("What it shows: ", "How to read it: ", "Formula: ", "Source: ", "What is normal: "):
        assert part in panel("watches").HELP


def test_what_is_wrong_in_a_text_is_said() -> None:
    one = watched(View(watches=("entropie",)))[0]
    assert "Did you mean 'entropy'" in one.why
