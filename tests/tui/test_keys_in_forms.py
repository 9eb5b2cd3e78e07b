"""In a form, a list or a page over the app: its keys act, letters are typed, and nothing happens behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driving import COMPACT, make_app, sent
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from fakes import make_info, make_prompt, make_steps
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.keys import KEYS
from openmav.apps.tui.screens.breakpoints import ACTIONS, BreakpointsScreen
from openmav.apps.tui.screens.forms import ListScreen
from openmav.record import Branch
from openmav.view.options import AppOptions

INFO = make_info(6, 4)
STEPS = make_steps(12, INFO)
OTHER = Branch("side", make_prompt(), (*STEPS[:5], *make_steps(9, INFO, seed=3)[5:]), "main", 5)
LEAVES = {"quit", "interrupt", "suspend"}  # these end or leave the app
NOT_TYPED = {
    "ctrl",
    "up",
    "down",
    "left",
    "right",
    "home",
    "end",
    "pageup",
    "pagedown",
    "tab",
    "shift",
    "enter",
    "escape",
    "backspace",
    "f1",
}


def app_with(**changes: object) -> MavApp:
    return make_app(12, layers=6, branches={"side": OTHER}, options=AppOptions(layout="overview"), **changes)


def saving(app: MavApp) -> None:
    app.controllers.layouts.ask_name()


FORMS: dict[str, tuple[str | Callable[[MavApp], None], dict[str, object]]] = {
    "insert text": ("w", {}),
    "edit the prompt": ("e", {}),
    "sampling": ("p", {}),
    "branches": ("g", {}),
    "an intervention": ("a", {}),
    "interventions": ("a", {"interventions": ("ablate L1.H1", "ablate L2.H1")}),
    "breakpoints": ("k", {}),
    "breakpoints that are set": ("k", {"breakpoints": ("entropy > 4", "nan")}),
    "copy": ("y", {}),
    "search": ("slash", {}),
    "save a layout": (saving, {}),
}


async def opened(app: MavApp, form: str, pilot) -> Screen[object]:  # type: ignore[no-untyped-def]
    while len(app.screen_stack) > 1:
        await app.pop_screen()
    opener = FORMS[form][0]
    await pilot.press(opener) if isinstance(opener, str) else opener(app)
    await pilot.pause()
    assert len(app.screen_stack) == 2
    return app.screen


def own_keys(screen: Screen[object]) -> list[str]:
    """The keys that a screen says it takes."""
    keys = [key for one in screen.BINDINGS if isinstance(one, Binding) for key in one.key.split(",")]
    if isinstance(screen, ListScreen):
        keys += [*screen._keys, "down", "enter"]
    if isinstance(screen, BreakpointsScreen) and screen.texts:
        keys += [*ACTIONS, "down"]
    several = len(screen.focus_chain) > 1
    return [key for key in dict.fromkeys(keys) if several or key not in ("up", "down", "tab")]


@pytest.mark.parametrize("form", FORMS)
async def test_every_key_of_a_form_is_answered(form: str) -> None:
    app, dead = app_with(**FORMS[form][1]), []
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        screen = await opened(app, form, pilot)
        for key in own_keys(screen):
            screen = await opened(app, form, pilot)
            before, focused = screen._compositor.render_strips(), screen.focused
            await pilot.press(key)
            await pilot.pause()
            closed = app.screen is not screen
            if not closed and screen._compositor.render_strips() == before and screen.focused is focused:
                dead.append(key)
    assert dead == []


def behind(app: MavApp) -> tuple[object, ...]:
    """What a key of the app would change."""
    view = app.view
    place = (view.cursor, view.candidate, view.layer, view.head, view.scroll, view.search, view.pinned, view.sampling)
    return (
        *place,
        view.layout,
        view.theme,
        dict(view.modes),
        app.panels.focused,
        app.panels.maximised,
        tuple(app.panels.modules),
        list(sent(app)),
    )


@pytest.mark.parametrize("form", ["sampling", "branches"])
async def test_the_keys_of_the_app_are_typed_or_do_nothing_behind_a_form(form: str) -> None:
    app = app_with(**FORMS[form][1])
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        screen = await opened(app, form, pilot)
        before = behind(app)
        for row in KEYS:
            key = row.keys.split(",")[0]
            if row.id in LEAVES | {"palette"}:
                continue
            if app.screen is not screen:
                screen = await opened(app, form, pilot)
                before = behind(app)
            field = screen.focused if isinstance(screen.focused, Input) else None
            value = None if field is None else field.value
            await pilot.press(key)
            await pilot.pause()
            if app.screen is screen:
                assert behind(app) == before, row.id
            if field is not None and not NOT_TYPED & {*key.split("+"), key} and key not in own_keys(screen):
                assert field.value != value, f"{row.id} was not typed"
