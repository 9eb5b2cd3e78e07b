"""A layout saved in the app is in the config file, and comes back as it was; all else in the file stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from driving import HOME, make_app, screen_text, shown, tile

from openmav.cli import run as run_module
from openmav.cli.config_file.read import read_config
from openmav.cli.main import main
from openmav.cli.run import make_options
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

pytest.importorskip("tomlkit")
from openmav.cli.config_file.write import save_layout

REST = '# mine\ntheme = "light"  # for the beamer\n\n[keys]\nrun = "p"   # as elsewhere\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mav" / "config.toml"
    monkeypatch.setenv("MAV_CONFIG", str(path))
    return path


def test_comments_and_other_settings_stay(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(REST)
    save_layout("my own", ("timeline", "health"), {"health": (1.25, 1.0)})
    assert file.read_text().startswith(REST)
    config = read_config()
    assert config.layouts["my own"] == ("timeline", "health")
    assert config.sizes == {"my own": {"health": (1.25, 1.0)}}
    assert (config.theme, config.keys) == ("light", {"run": "p"})


def test_a_layout_of_that_name_is_replaced_and_its_sizes_with_it(file: Path) -> None:
    save_layout("a", ("timeline", "health"), {"health": (2.0, 1.0)})
    save_layout("b", ("uncertainty",), {})
    save_layout("a", ("uncertainty", "timeline"), {})
    config = read_config()
    assert {name: config.layouts[name] for name in "ab"} == {"a": ("uncertainty", "timeline"), "b": ("uncertainty",)}
    assert config.sizes == {}


def test_a_file_with_a_mistake_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("layout = [")
    with pytest.raises(UsageError, match="line 1: is not TOML"):
        save_layout("a", ("timeline",), {})
    assert file.read_text() == "layout = ["


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("other = { timeline = [1, 2] }", "unknown layout 'other'"),
        ("a = [1, 2]", "a must be a table of panels"),
        ("a = { health = [1, 2] }", "unknown panel of layout 'a' 'health'"),
        ("a = { timeline = [1, 9] }", "each from 0.25 to 4"),
        ("a = { timeline = [true, 1] }", "each from 0.25 to 4"),
    ],
)
def test_a_wrong_size_is_one_line_with_its_number(file: Path, row: str, why: str) -> None:
    file.parent.mkdir()
    file.write_text(f'[layouts]\na = ["timeline"]\n[sizes]\n{row}\n')
    with pytest.raises(UsageError) as found:
        read_config()
    assert "line 4: " in str(found.value)
    assert why in str(found.value)


async def test_what_was_arranged_in_the_app_comes_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    app = make_app(options=AppOptions(panels=LAYOUTS["sampling"], save_layout=save_layout))
    async with app.run_test(size=HOME) as pilot:
        app.panels.focused = "top_predictions"
        await pilot.press("less_than_sign", "ctrl+right", "ctrl+up")
        app.panels.focused = "uncertainty"
        await pilot.press("x")
        app.controllers.layouts.ask_name()
        await pilot.pause()
        await pilot.press(*"mine", "enter")
        await pilot.pause()
        assert "saved as layout 'mine'" in screen_text(app)
        before = {name: tile(app, name).place for name in shown(app)}
        await pilot.press("1")
        assert shown(app) != list(before)
        app.controllers.layouts.show("mine")
        await pilot.pause()
        again = {name: tile(app, name).place for name in shown(app)}
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(run_module, "run_command", lambda values: calls.append(values) or 0)
    assert main(["--layout", "mine"]) == 0
    started = make_app(options=make_options(calls[0], read_config()))
    async with started.run_test(size=HOME) as pilot:
        await pilot.pause()
        assert list(started.panels.modules) == list(app.panels.modules)
        later = {name: tile(started, name).place for name in shown(started)}
    assert {name: place and replace(place, y=0) for name, place in again.items()} == {
        name: place and replace(place, y=0) for name, place in later.items()
    }
    assert {name: place and place.width for name, place in before.items()} == {name: place and place.width for name, place in later.items()}


async def test_a_source_without_the_command_says_that_it_cannot() -> None:
    app = make_app()
    async with app.run_test(size=HOME) as pilot:
        app.controllers.layouts.save("x")
        await pilot.pause()
        assert "layouts can only be saved" in screen_text(app)
