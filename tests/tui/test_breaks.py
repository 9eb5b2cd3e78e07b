"""The form of breakpoints and watches: all by keys and by mouse, checked as one types, in force at once, nothing lost on resize."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driving import COMPACT, HOME, SMALL, make_app, screen_text, sent
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from fakes import ListSource, make_info, make_steps
from openmav.apps.tui.keys import key_lines
from openmav.apps.tui.screens.help import HelpScreen
from openmav.protocol.commands import Pause, Resume, SetBreakpoints
from openmav.view.options import AppOptions


async def write(pilot: Pilot, text: str) -> None:
    pilot.app.screen.query_one(Input).value = text
    await pilot.press("enter")
    await pilot.pause()


async def test_a_condition_stops_and_a_value_is_watched() -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k")
        await pilot.press(*"nan", "enter")
        await pilot.pause()
        await write(pilot, "norm(mlp, 3)")
        assert sent(app) == [SetBreakpoints(("nan",))]
        assert (app.view.breakpoints, app.view.watches) == (("nan",), ("norm(mlp, 3)",))
        text = screen_text(app)
        assert "○ break nan" in text
        assert "· watch norm(mlp, 3)" in text
        assert f"{app.view.steps[-1].values['mlp_norm'][3]:.2f}" in text
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert app.view.breakpoints == ("nan",)


async def test_the_spot_of_a_mistake_stands_under_the_text_as_one_types() -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k", *"entropy ", ">", "space", *"foo")
        await pilot.pause()
        lines = screen_text(app).splitlines()
        at = next(y for y, line in enumerate(lines) if "entropy > foo" in line)
        column = lines[at].index("foo")
        assert lines[at + 1][column] == "▲"
        assert "unknown name 'foo'" in lines[at + 2]
        await pilot.press("enter")
        assert sent(app) == []
        assert app.screen.query_one(Input).value == "entropy > foo"
        await write(pilot, "norm(mlp, 30) > 1")
        assert "no such layer: it has 0 to 29" in screen_text(app)
        assert sent(app) == []


async def test_rows_are_turned_edited_and_deleted_by_keys() -> None:
    app = make_app(6, breakpoints=("nan", "entropy > 4"))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k", "down", "b")
        await pilot.pause()
        assert sent(app) == [SetBreakpoints(("nan",))]
        assert app.view.watches == ("entropy > 4",)
        await pilot.press("b", "e")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "entropy > 4"
        await pilot.press("2", "enter")
        await pilot.pause()
        assert sent(app)[-1] == SetBreakpoints(("nan", "entropy > 42"))
        await pilot.press("down", "home", "d")
        await pilot.pause()
        assert sent(app)[-1] == SetBreakpoints(("entropy > 42",))
        await pilot.press("d")
        await pilot.pause()
        assert sent(app)[-1] == SetBreakpoints(())
        assert isinstance(app.focused, Input)


async def test_a_value_cannot_stop() -> None:
    app = make_app(6, options=AppOptions(watches=("entropy",)))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k", "b")
        await pilot.pause()
        assert "compare it with something to break on it" in screen_text(app)
        assert sent(app) == []


async def test_the_words_below_can_be_clicked() -> None:
    app = make_app(6, breakpoints=("nan", "entropy > 4"))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k")
        await pilot.pause()
        for word, expected in (("d delete", [SetBreakpoints(("entropy > 4",))]), ("b break", [SetBreakpoints(())])):
            lines = screen_text(app).splitlines()
            y = next(y for y, line in enumerate(lines) if "d delete" in line)
            await pilot.click(offset=(lines[y].index(word) + 1, y))
            await pilot.pause()
            assert sent(app)[-1:] == expected
        y = next(y for y, line in enumerate(screen_text(app).splitlines()) if "watch entropy > 4" in line)
        await pilot.click(offset=(20, y))
        await pilot.pause()
        assert app.screen.query_one(Input).value == "entropy > 4"
        y = next(y for y, line in enumerate(screen_text(app).splitlines()) if "escape closes" in line)
        await pilot.click(offset=(screen_text(app).splitlines()[y].index("escape closes") + 1, y))
        await pilot.pause()
        assert len(app.screen_stack) == 1


async def test_nothing_is_lost_on_resize_and_values_go_on() -> None:
    app = make_app(6, breakpoints=("entropy > 40",), options=AppOptions(watches=("index",)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("k", "a", *"prob")
        await pilot.resize_terminal(*SMALL)
        await pilot.pause()
        assert app.screen.query_one(Input).value == "prob"
        assert "watch index" in screen_text(app)
        app.source.send(Resume())
        app.source.beat()
        app.tick()
        await pilot.pause(0.3)
        assert app.screen.query_one("#rows", OptionList).get_option_at_index(1).prompt.plain.rstrip().endswith(" 6")
        await pilot.resize_terminal(*COMPACT)
        assert app.screen.query_one(Input).value == "prob"


async def test_what_is_watched_is_computed_while_the_form_is_open() -> None:
    app = make_app(6, options=AppOptions(watches=("lens[3]",), panels=("timeline",)))
    async with app.run_test(size=COMPACT) as pilot:
        wanted = lambda: next(c.measures for c in reversed(app.source.sent) if hasattr(c, "measures"))  # noqa: E731
        assert wanted() == frozenset()
        await pilot.press("k")
        await pilot.pause()
        assert wanted() == {"logit_lens"}
        await pilot.press("escape")
        await pilot.pause()
        assert wanted() == frozenset()


async def test_a_recording_can_be_watched_and_not_stopped() -> None:
    app = make_app(source=ListSource(make_steps(6, make_info())))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k")
        await write(pilot, "entropy > 4")
        assert (app.view.breakpoints, app.view.watches) == ((), ("entropy > 4",))
        await pilot.press("down", "b")
        await pilot.pause()
        assert "does not support breakpoints" in screen_text(app)


async def test_before_there_is_a_model() -> None:
    app = make_app(source=ListSource(status="loading", prompt=None))
    app.source._now = replace(app.source._now, info=None)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k")
        await write(pilot, "norm(mlp, 99) > 1")
        assert app.view.watches == ("norm(mlp, 99) > 1",)


async def test_ctrl_c_in_a_run_that_paused_at_a_breakpoint_quits() -> None:
    app = make_app(6, breakpoints=("nan",), notice="breakpoint nan at token 5")
    async with app.run_test(size=COMPACT) as pilot:
        assert "breakpoint nan at token 5" in screen_text(app)
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert app.return_code == 0
    assert not any(isinstance(command, Pause) for command in sent(app))


async def test_ctrl_c_with_the_form_open_quits_too() -> None:
    app = make_app(6, breakpoints=("nan",))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k", "ctrl+c")
        await pilot.pause()
    assert app.return_code == 0


async def test_the_help_lists_the_key() -> None:
    app = make_app(3)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        assert ("k", "breakpoints and watches") in key_lines({})


@pytest.mark.parametrize("key", ["k", "g"])
@pytest.mark.parametrize("size", [(1, 1), (4, 3), (9, 2), (12, 5), (20, 6)])
async def test_a_list_in_a_terminal_that_is_far_too_small(key: str, size: tuple[int, int]) -> None:
    app = make_app(6, breakpoints=("nan", "entropy > 4"))
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(key)
        await pilot.pause()
        await pilot.resize_terminal(*size)
        await pilot.pause()
        await pilot.resize_terminal(*COMPACT)
        await pilot.pause()
        assert len(app.screen_stack) == 2


async def test_the_value_at_the_shown_token_stands_under_what_is_typed() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "k", *"entropy > 99")
        await pilot.pause()
        assert f"at token 10: false: {app.view.steps[10].entropy:.2f}"[:-1] in screen_text(app)


async def test_names_are_listed_and_completed_by_tab_enter_and_click() -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k", *"ent")
        await pilot.pause()
        field, text = app.screen.query_one(Input), screen_text(app)
        assert "attention_entropy" in text
        assert "of the raw next-token distribution, nats" in text
        await pilot.press("tab")
        assert (field.value, field.has_focus) == ("entropy", True)
        await pilot.press("space", ">", "space", *"ma", "enter")
        await pilot.pause()
        assert field.value == "entropy > max(", "what is no condition yet is completed, not refused"
        await pilot.press(*"nor", "tab", "a", "enter", ")", ")", "enter")
        await pilot.pause()
        assert sent(app) == [SetBreakpoints(("entropy > max(norm(attention))",))]
        await pilot.press(*"surp", "down", "enter")
        await pilot.pause()
        assert field.value == "surprisal"
        await pilot.press("enter")
        assert app.view.watches == ("surprisal",)
        await pilot.press(*"top")
        await pilot.pause()
        names = app.screen.query_one("#names", OptionList)
        await pilot.click(names, offset=(4, 1))
        await pilot.pause()
        assert (field.value, field.has_focus) == ("top_p", True)


async def test_down_goes_to_what_is_set_where_there_is_no_word_to_complete() -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("k")
        await write(pilot, "entropy > 4")
        assert not app.screen.query_one("#names").display
        await pilot.press("down")
        assert app.screen.query_one("#rows").has_focus
