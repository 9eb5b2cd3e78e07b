"""The form of an intervention offers what this model can take, says what is wrong in place, and keeps what was typed."""

from __future__ import annotations

from driving import COMPACT, make_app, screen_text, sent
from textual.widgets import Input

from openmav.panels.interventions import examples_for
from openmav.protocol.commands import Intervene


async def test_an_intervention_is_picked_and_changed() -> None:
    app = make_app(layers=6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("a")
        await pilot.pause()
        examples = examples_for(app.view)
        assert len(examples) > 2
        assert all(spec in screen_text(app) for spec, _ in examples)
        await pilot.press("down", "down", "enter")
        await pilot.pause()
        assert sent(app) == [Intervene((examples[1][0],))]


async def test_a_head_that_the_model_lacks_is_refused_in_the_form_and_what_was_typed_stays() -> None:
    app = make_app(layers=6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("a")
        await pilot.pause()
        for spec, why in (("ablate L6.mlp", "no layer 6: they go from 0 to 5"), ("ablate L2.H9", "no head 9: they go from 0 to 8")):
            app.screen.query_one(Input).value = spec
            await pilot.press("enter")
            await pilot.pause()
            assert f"this model has {why}" in screen_text(app)
        assert sent(app) == []
        await pilot.press("escape", "a")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "ablate L2.H9"
