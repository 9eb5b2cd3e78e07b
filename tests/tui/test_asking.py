"""The keys that ask why: what they ask for, and that the panel comes by itself."""

from __future__ import annotations

from driving import HOME, make_app, screen_text, sent, shown

from fakes import ListSource, make_attribution, make_steps
from openmav.protocol.commands import Attribute


async def test_i_asks_for_the_shown_token_and_brings_the_panel() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "i")
        await pilot.pause()
        step = app.view.steps[10]
        assert sent(app) == [Attribute("gradient", 10, step.token_id, None, "main")]
        assert "input_attribution" in shown(app)


async def test_i_again_takes_the_next_method() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("i")
        for method, following in (("gradient", "integrated"), ("integrated", "occlusion"), ("occlusion", "gradient")):
            view = app.view
            assert view.prompt is not None
            app.source.history.update(attribution=make_attribution(view.prompt, view.steps, 11, method=method))  # type: ignore[attr-defined]
            app.tick()
            await pilot.press("i")
            assert sent(app)[-1].method == following  # type: ignore[attr-defined]
        await pilot.press("left", "i")  # another token: the same method
        assert sent(app)[-1] == Attribute("occlusion", 10, app.view.steps[10].token_id, None, "main")


async def test_a_method_that_fails_is_gone_past() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        methods = []
        for _ in range(4):
            await pilot.press("i")
            methods.append(sent(app)[-1].method)  # type: ignore[attr-defined]
            app.source.history.update(notice=f"{methods[-1]} is not available")  # type: ignore[attr-defined]
        assert methods == ["gradient", "integrated", "occlusion", "gradient"], "none of them was answered"


async def test_a_selected_candidate_is_a_or_with_capital_i_b() -> None:
    app = make_app(12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("I")
        assert "select another candidate first" in screen_text(app)
        step = app.view.steps[-1]
        other = next(row for row, token in enumerate(step.candidates.token_ids.tolist()) if token != step.token_id)
        app.context.show(app.view.at_candidate(other))
        token = int(step.candidates.token_ids[other])
        await pilot.press("i")
        assert sent(app)[-1] == Attribute("gradient", step.index, token, None, "main")
        await pilot.press("I")
        assert sent(app)[-1] == Attribute("gradient", step.index, step.token_id, token, "main")


async def test_a_source_without_attribution_says_so() -> None:
    app = make_app(source=ListSource(make_steps(3)))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("i")
        assert "does not support input attribution" in screen_text(app)
        assert "input_attribution" not in shown(app)
