"""u undoes what a key changed beside the text, y copies, ( and ) set the pace."""

from __future__ import annotations

import base64
import math

import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent, shown

from fakes import ListSource, make_steps
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.controllers.copying import candidates, offered
from openmav.apps.tui.controllers.run import PACES
from openmav.protocol.commands import Intervene, SetPace
from openmav.view.layouts import LAYOUTS


def arrangement(app: MavApp) -> tuple[object, ...]:
    """The panels, in their order and sizes, and what is marked as the layout."""
    return list(app.panels.modules), app.panels.kinds, app.panels.focused, app.view.layout, app.view.rearranged


@pytest.mark.parametrize("key", ["x", ">", "ctrl+right", "ctrl+up", "3", "i"])
async def test_u_undoes_a_change_of_the_panels(key: str) -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("tab", "tab", "tab")
        before = arrangement(app)
        await pilot.press(key)
        await pilot.pause()
        assert arrangement(app) != before
        await pilot.press("u")
        await pilot.pause()
        assert arrangement(app) == before
        assert "the panels as before" in screen_text(app)


async def test_u_goes_back_change_by_change_and_says_where_there_is_none() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("u")
        assert "there is no change of panels or interventions to undo" in screen_text(app)
        await pilot.press("x", "x", "3", "u")
        assert "2 more to undo" in screen_text(app)
        assert len(app.panels.modules) == len(LAYOUTS["overview"]) - 2
        await pilot.press("u", "u")
        assert tuple(app.panels.modules) == LAYOUTS["overview"]
        await pilot.press("u")
        assert "there is no change" in screen_text(app)


async def test_u_undoes_an_intervention_in_the_order_of_all_changes() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        app.controllers.interventions._set(("ablate L3.mlp",))
        await pilot.press("x", "u")
        assert app.view.interventions == ("ablate L3.mlp",)
        await pilot.press("u")
        await pilot.pause()
        assert sent(app) == [Intervene(("ablate L3.mlp",)), Intervene(())]
        assert app.view.interventions == ()
        assert "the interventions as before" in screen_text(app)


async def test_y_copies_what_is_chosen() -> None:
    app = make_app(3)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("y")
        await pilot.pause()
        text = screen_text(app)
        assert all(name in text for name in offered(app.view))
        await pilot.press("enter")
        await pilot.pause()
        assert app.clipboard == "".join(step.text for step in app.view.steps)
        assert f"copied the generated text: {len(app.clipboard)} characters" in screen_text(app)


async def test_a_copy_reaches_the_terminal_encoded() -> None:
    app = make_app(3)
    async with app.run_test(size=COMPACT) as pilot:
        written: list[str] = []
        app._driver.write = written.append  # type: ignore[union-attr, method-assign]
        await pilot.press("y", "down", "down", "down", "enter")
        await pilot.pause()
        assert f"\x1b]52;c;{base64.b64encode(app.view.steps[-1].token.encode()).decode()}\a" in "".join(written)


async def test_half_of_a_surrogate_pair_is_copied_as_a_question_mark() -> None:
    app = make_app(1)
    async with app.run_test(size=COMPACT) as pilot:
        app.controllers.copying._take("the token", "a\ud800b")
        await pilot.pause()
        assert app.clipboard == "a?b"


def test_numbers_of_a_token_and_its_candidates_are_those_of_the_step() -> None:
    (step,) = make_steps(1)
    lines = [line.split("\t") for line in candidates(step).splitlines()]
    assert lines[0] == ["rank", "id", "token", "p", "logit"]
    assert [int(line[1]) for line in lines[1:]] == step.candidates.token_ids.tolist()
    assert [float(line[3]) for line in lines[1:]] == pytest.approx(step.candidates.probs.tolist(), rel=1e-5)
    app = make_app(1)
    words = offered(app.view.updated(app.source.snapshot()))["the token's numbers"].split()
    assert float(words[words.index("p") + 1]) == pytest.approx(math.exp(step.logprob), rel=1e-5)


async def test_a_screen_without_a_text_has_nothing_to_copy() -> None:
    app = make_app(0, status="loading", prompt=None)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("y")
        assert "there is nothing to copy" in screen_text(app)


async def test_the_pace_goes_from_one_value_to_the_next_and_says_where_it_ends() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        for seconds in PACES[1:]:
            await pilot.press("(")
            assert app.view.pace == seconds
            assert f"each token stays for {seconds:g} s at least" in screen_text(app)
        await pilot.press("(")
        assert "the longest" in screen_text(app)
        await pilot.press(*[")"] * len(PACES))
        assert "as fast as the model makes them" in screen_text(app)
        assert [command.seconds for command in sent(app) if isinstance(command, SetPace)] == [*PACES[1:], *PACES[-2::-1]]


async def test_a_source_without_a_pace_says_so() -> None:
    app = make_app(source=ListSource(make_steps(3)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("(")
        assert "generates no tokens" in screen_text(app)
        assert shown(app)


async def test_the_header_counts_tokens_as_all_else_does_and_names_no_place_at_the_end() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "left")
        assert "token 9, newest 11" in screen_text(app).splitlines()[0]
        await pilot.press("end", "down")
        assert "newest" not in screen_text(app).splitlines()[0]
