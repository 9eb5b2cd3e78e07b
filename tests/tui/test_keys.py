"""One table of keys: every row does something, and a new row is all that a new key needs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import ClassVar, get_type_hints

import pytest
from driving import HOME, make_app, screen_text
from textual import actions
from textual.app import App
from textual.binding import BindingType

from fakes import ScriptedSource, make_info, make_steps
from openmav.apps.tui import keys as table
from openmav.apps.tui.app import Controllers, MavApp
from openmav.apps.tui.textual_bindings import bindings
from openmav.apps.tui.tour.app import TourApp
from openmav.apps.tui.tour.steps import TOUR_STEPS
from openmav.cli.config_file.read import read_config
from openmav.errors import UsageError
from openmav.view.options import AppOptions

NEW = table.Key("first_layer", "f9,L", "look at layer 0", "navigation.layer(-999)", "layer 0", 3)


@pytest.mark.parametrize("row", [row for row in table.KEYS if "." in row.action], ids=lambda row: row.id)
def test_every_row_names_a_method_that_takes_its_arguments(row: table.Key) -> None:
    controller, name, arguments = actions.parse(row.action)
    method = getattr(get_type_hints(Controllers)[controller], name)
    inspect.signature(method).bind(None, *arguments)


@pytest.mark.parametrize("row", [row for row in table.KEYS if "." not in row.action], ids=lambda row: row.id)
def test_the_other_rows_are_actions_of_textual(row: table.Key) -> None:
    assert hasattr(App, f"action_{row.action}")


def test_no_key_and_no_id_stands_in_two_rows() -> None:
    taken = [key for row in table.KEYS for key in row.keys.split(",")]
    names = [name for row in table.KEYS for name in (row.id, *row.aliases)]
    assert len(taken) == len(set(taken))
    assert len(names) == len(set(names))


def test_the_least_needed_hints_go_first_and_no_two_at_once() -> None:
    ranks = [hint.rank for hint in table.hints({})]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


@pytest.fixture
def _with_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "KEYS", (*table.KEYS, NEW))


@pytest.mark.usefixtures("_with_a_new_key")
async def test_a_new_key_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithNewKey(MavApp, inherit_bindings=False):
        BINDINGS: ClassVar[list[BindingType]] = bindings()

    info = make_info(6, 4)
    app = WithNewKey(ScriptedSource(make_steps(3, info), info), AppOptions())
    async with app.run_test(size=HOME) as pilot:
        footer = screen_text(app).splitlines()[-1]
        assert "f9 layer 0" in footer
        await pilot.press("L")
        assert app.view.layer == 0, "the key does it"
        await pilot.press("right_square_bracket")
        await pilot.click("Footer", offset=(footer.index("layer 0"), 0))
        assert app.view.layer == 0, "a click on the footer does it"
        assert ("View: look at layer 0", "key: f9 or L") in [(one.title, one.help) for one in app.get_system_commands(app.screen)]
        await pilot.press("question_mark", "slash", *"look layer")
        await pilot.pause()
        assert "f9 or L  look at layer 0" in screen_text(app)
    path = tmp_path / "config.toml"
    path.write_text('[keys]\nfirst_layer = "f10"\n')
    assert read_config(path).keys == {"first_layer": "f10"}
    moved = WithNewKey(ScriptedSource(make_steps(3, info), info), AppOptions(keys=read_config(path).keys))
    async with moved.run_test(size=HOME) as pilot:
        await pilot.press("L")
        assert moved.view.layer == 5
        await pilot.press("f10")
        assert moved.view.layer == 0
        assert "f10 layer 0" in screen_text(moved)


def test_older_names_of_a_binding_are_read_and_no_two_names_of_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[keys]\nback = "z"\ntouch = "y"\n')
    assert read_config(path).keys == {"undo": "z", "intervene": "y"}
    path.write_text('[keys]\nundo = "z"\nback = "y"\n')
    with pytest.raises(UsageError, match="line 3: 'back' is an older name of 'undo', which has its keys already"):
        read_config(path)


async def test_a_key_under_an_older_name_does_it() -> None:
    app = make_app(3, options=AppOptions(keys={"back": "z", "touch": "y"}))
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("z")
        assert len(app.view.steps) == 2
        assert "z undo" in screen_text(app)
        await pilot.press("y")
        assert "Add an intervention" in screen_text(app)


async def test_the_tours_keys_are_rows_too() -> None:
    app = TourApp(ScriptedSource((), make_info(6, 8)), AppOptions(panels=TOUR_STEPS[0].panels, keys={"next": "c"}))
    async with app.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert {row.id: app.view.options.keys[row.id] for row in table.TOUR_KEYS} == {"tour_next": "f8", "tour_previous": "z"}
