"""Interventions and sweeps in the app: put together from fields, told what is wrong, added, taken off, stopped."""

from __future__ import annotations

import re
from dataclasses import replace

from driving import COMPACT, HOME, make_app, screen_text, sent, tile
from textual.widgets import Input, Static

from fakes import ListSource, ScriptedSource, make_info, make_steps
from openmav.apps.tui.screens.forms import FormScreen
from openmav.protocol.commands import Intervene, Pause, SweepSites
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

INFO = make_info(4, 4)
STEPS = make_steps(12, INFO)


async def test_an_intervention_is_put_together_from_fields_and_the_text_says_the_same() -> None:
    app = make_app(8)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("a")
        await pilot.pause()
        text = app.screen.query_one("#field-spec", Input)
        assert text.value == "ablate L29.H0"
        await pilot.press("tab", "tab", "right")
        await pilot.pause()
        assert text.value == "amplify L29.H0=2"
        await pilot.press("tab", "1", "2", "tab", "tab", "8", "tab", "0", ".", "5", "tab", *"2-7")
        await pilot.pause()
        assert text.value == "amplify L12.H8@2-7=0.5"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [Intervene(("amplify L12.H8@2-7=0.5",))]


async def test_what_is_wrong_with_a_field_stands_beside_it_and_nothing_typed_is_lost() -> None:
    app = make_app(8)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("a", "tab", "tab", "tab", "9", "9")
        await pilot.pause()
        (row,) = [line for line in screen_text(app).splitlines() if "no layer 99" in line]
        assert re.search(r"layer +99 +no layer 99: 0 to 29", row)
        await pilot.press("enter")
        assert sent(app) == []
        assert len(app.screen_stack) == 2
        await pilot.press("escape", "a")
        await pilot.pause()
        assert app.screen.query_one("#field-spec", Input).value == "ablate L99.H0"
        assert app.screen.query_one("#pick-layer", Input).value == "99"
        assert "this model has no layer 99: they go from 0 to 29" in screen_text(app)


async def test_the_fields_follow_the_text() -> None:
    app = make_app(8)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("a")
        for spec, shown in (
            ("patch L3.resid@-1=a cat", {"kind": "patch", "layer": "3", "part": "resid", "text": "a cat", "positions": "-1"}),
            ('steer L5="a"-"b"*4', {"kind": "steer", "layer": "5", "vector": '"a"-"b"', "factor": "4", "positions": ""}),
            ("ablate L0.mlp=mean", {"kind": "ablate", "layer": "0", "part": "mlp", "how": "mean", "positions": ""}),
        ):
            app.screen.query_one("#field-spec", Input).value = spec
            await pilot.pause()
            rows = {str(row.id).removeprefix("row-") for row in app.screen.query("#pickers > .field") if row.display}
            assert rows == set(shown)
            assert {name: app.screen.query_one(f"#pick-{name}").value for name in rows} == shown  # type: ignore[attr-defined]


async def test_a_click_on_an_example_in_the_panel_opens_the_form_with_it() -> None:
    app = make_app(8, options=AppOptions(layout="hands-on", panels=LAYOUTS["hands-on"]))
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        panel = tile(app, "interventions")
        lines = [line.text for line in panel._strips]
        y = next(y for y, line in enumerate(lines) if "amplify L29.mlp=2" in line)
        await pilot.click(panel, offset=(6, y))
        await pilot.pause()
        assert app.screen.query_one("#field-spec", Input).value == "amplify L29.mlp=2"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [Intervene(("amplify L29.mlp=2",))]
        await pilot.press("u")
        await pilot.pause()
        assert sent(app)[-1] == Intervene(())


async def test_interventions_are_added_and_taken_off() -> None:
    app = make_app(3, layers=4)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("a")
        field = app.screen.query_one(Input)
        assert field.value == "ablate L3.H0"
        field.value = "ablate L3.Q0"
        await pilot.press("enter")
        assert isinstance(app.screen, FormScreen)
        assert "Q0" in str(app.screen.query_one("#wrong", Static).render())
        field.value = "amplify L2.attn=0.5"
        await pilot.press("enter")
        await pilot.pause()
        assert sent(app) == [Intervene(("amplify L2.attn=0.5",))]
    on = ("ablate L3.H0", "amplify L2.attn=0.5")
    for keys, left in ((("d",), on[1:]), (("down", "d"), on[:1]), (("0",), ())):
        app = make_app(3, layers=4, interventions=on)
        async with app.run_test(size=HOME) as pilot:
            assert "▾ ablate L3.H0 and 1 more" in screen_text(app)
            await pilot.press("a", *keys)
            await pilot.pause()
            assert sent(app) == [Intervene(left)]


async def test_a_sweep_has_the_whole_screen_and_escape_stops_it() -> None:
    app = make_app(8, layers=12)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("left", "ctrl+p")
        await pilot.pause(0.3)
        await pilot.press(*"sweep")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.3)
        assert "attention blocks: each adds its mean over the text before the token" in screen_text(app)
        assert "layers: each is skipped" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause(0.3)
        assert sent(app) == [SweepSites(6, "main")]
        assert "40 of 108 heads" in screen_text(app)
        assert app.panels.maximised
        await pilot.press("escape")
        await pilot.pause()
        assert sent(app)[1:] == [Pause()]
        app.source.history.update(sweep=replace(app.view.sweep, stopped=True))  # type: ignore[attr-defined, type-var]
        app.tick()
        await pilot.press("escape")
        await pilot.pause()
        assert len(sent(app)) == 2, "it is over: escape is what it always is"
        assert not app.panels.maximised


async def test_a_sweep_takes_each_kind_of_site_and_what_it_adds_instead() -> None:
    app = make_app(8, layers=12)
    async with app.run_test(size=HOME) as pilot:
        app.controllers.sweep.start()
        await pilot.pause()
        await pilot.press("down", "down", "down", "down", "down", "enter")
        await pilot.pause()
        assert sent(app) == [SweepSites(7, "main", "mlp", "mean")]
        assert "ablating 12 MLPs one by one" in screen_text(app)
        app.controllers.sweep.start()
        await pilot.pause()
        await pilot.press("escape")
        assert len(sent(app)) == 1


async def test_a_sweep_needs_a_token_and_a_model_and_offers_heads_where_there_are_some() -> None:
    for app, says in (
        (make_app(0), "there is no token yet"),
        (make_app(source=ListSource(STEPS, INFO)), "this source does not support sweeps"),
        (make_app(source=ScriptedSource(STEPS, replace(INFO, heads=0))), "MLPs: each adds nothing"),
    ):
        async with app.run_test(size=HOME) as pilot:
            app.controllers.sweep.start()
            await pilot.pause()
            assert says in screen_text(app)
            assert " heads: each" not in screen_text(app)
            assert sent(app) == []
