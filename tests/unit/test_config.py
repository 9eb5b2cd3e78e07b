"""The config file: what it can say, which flag wins over it, and the line of every mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from openmav import mav
from openmav.cli import run as run_module
from openmav.cli.config_file.read import Config, config_path, line_of, read_config
from openmav.cli.main import main
from openmav.cli.run import make_options, make_settings
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

PANEL = 'TITLE = "Mine"\nNEEDS = ("mine_too",)\nHELP = "x"\ndef render(view, width, height):\n    return []\n'
MEASURE = '"""Mine."""\nTITLE = "mine"\nNEEDS = ()\ndef compute(frame, context):\n    return frame.logits[:1].numpy()\n'


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file that mav reads; not there yet."""
    path = tmp_path / "mav" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv("MAV_CONFIG", str(path))
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch):
    """The values of a command line, which is not run."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run_module, "run_command", lambda values: calls.append(values) or 0)

    def parse(*args: str) -> dict[str, Any]:
        assert main(args) == 0
        return calls.pop()

    return parse


def test_layouts_name_panels_that_there_are() -> None:
    for panels in LAYOUTS.values():
        registry.need_known("panels", panels)


@pytest.mark.parametrize(("old", "new"), registry.RENAMED["panels"].items())
def test_an_older_name_of_a_panel_is_the_panel_of_today(
    old: str, new: str, file: Path, parsed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old not in registry.names("panels")
    assert registry.load("panels", old) is registry.load("panels", new)
    assert make_options(parsed("--selected-panels", old, "timeline", new)).panels == (new, "timeline")

    file.write_text(f'[layouts]\nmine = ["{old}", "{new}", "timeline"]\n[sizes]\nmine = {{ {old} = [1.5, 2.0] }}\n')
    config = read_config()
    assert (config.layouts["mine"], config.sizes) == ((new, "timeline"), {"mine": {new: (1.5, 2.0)}})
    file.write_text(file.read_text().replace(" }", f", {new} = [1.0, 2.0] }}"))
    with pytest.raises(UsageError, match=f"the size of {new} is given twice"):
        read_config()

    shown: list[AppOptions] = []
    monkeypatch.setattr(mav, "is_terminal", lambda stream: True)
    monkeypatch.setattr(mav, "_show_app", lambda settings, options: shown.append(options))
    mav.MAV("toy", "Hi", backend="toy", selected_panels=[old, new])
    assert shown[0].panels == (new,)

    with pytest.raises(UsageError) as error:
        registry.need_known("panels", ["nothing"])
    assert new in str(error.value).split("Known: ")[1].split(", ")
    assert old not in str(error.value)


def test_a_panel_of_ones_own_may_have_an_older_name(tmp_path: Path) -> None:
    (tmp_path / "signals.py").write_text(PANEL)
    registry.add_file("panels", str(tmp_path / "signals.py"))
    assert registry.need_known("panels", ["signals", "uncertainty"]) == ("signals", "uncertainty")
    assert registry.load("panels", "signals").TITLE == "Mine"


def test_no_file_is_no_mistake(file: Path) -> None:
    assert read_config() == Config()
    assert config_path() == file


def test_everything_that_it_can_say(file: Path) -> None:
    (file.parent / "mine.py").write_text(PANEL)
    (file.parent / "mine_too.py").write_text(MEASURE)
    text = 'layout = "reading"\ntheme = "light"\npanels = ["mine.py"]\nmeasures = ["mine_too.py"]\n'
    text += '[layouts]\nreading = ["timeline", "mine"]\n[keys]\nrun = "p, f2"\nhelp = "?"\n'
    file.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert read_config() == Config(
        layout="reading",
        theme="light",
        panels=("mine",),
        measures=(str(file.parent / "mine_too.py"),),
        layouts={**LAYOUTS, "reading": ("timeline", "mine")},
        keys={"run": "p,f2", "help": "?"},
    )


def test_flags_win_over_the_file_and_panels_over_a_layout(file: Path, parsed) -> None:
    file.write_text('layout = "minimal"\ntheme = "light"\n[keys]\nrun = "p"\n')
    config = read_config()
    plain = make_options(parsed(), config)
    assert (plain.panels, plain.theme, plain.keys) == (LAYOUTS["minimal"], "light", {"run": "p"})
    flagged = make_options(parsed("--layout", "lens", "--theme", "contrast"), config)
    assert (flagged.panels, flagged.theme) == (LAYOUTS["lens"], "contrast")
    named = make_options(parsed("--layout", "lens", "--selected-panels", "timeline", "--num-grid-rows", "2"), config)
    assert (named.panels, named.grid_rows) == (("timeline",), 2)


def test_own_panels_stand_beside_every_choice(file: Path, parsed) -> None:
    own = file.parent / "mine.py"
    own.write_text(PANEL.replace("mine_too", "mlp_norm"))
    options = make_options(parsed("--panel", str(own), "--layout", "minimal"))
    assert options.panels == (*LAYOUTS["minimal"], "mine")
    assert make_options(parsed("--panel", str(own), "--selected-panels", "mine")).panels == ("mine",)


def test_own_measures_go_to_the_models_process_by_path(file: Path, parsed) -> None:
    own = file.parent / "mine_too.py"
    own.write_text("raise RuntimeError  # it must not run here\n" + MEASURE)
    settings = make_settings(parsed("--measure", str(own), "--measure", "router"), "json")
    assert settings.measures[-2:] == ("mine_too", "router")
    assert settings.measure_files == (str(own),)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('theme = "dark"\nlayout = \n', 2, "is not TOML"),
        ("a = [\n", 2, "is not TOML"),
        ('theme = "dark"\nlayuot = "lens"\n', 2, "unknown setting 'layuot'. Did you mean 'layout'?"),
        ('\nlayout = "lans"\n', 2, "unknown layout 'lans'. Did you mean 'lens'?"),
        ("layout = 3\n", 1, "layout must be a text in quotes"),
        ('# theme = "x"\ntheme = "drak"\n', 2, "unknown theme 'drak'. Did you mean 'dark'?"),
        ('[layouts]\na = ["timeline"]\nb = [\n  "timeline",\n  "timelime",\n]\n', 5, "unknown panel 'timelime'"),
        ("[layouts]\na = []\n", 2, "layout 'a' has no panels"),
        ('[layouts]\na = "timeline"\n', 2, "a must be a list of texts"),
        ('layouts = "a"\n', 1, "layouts must be a table"),
        ('[keys]\nrun = "p"\nrunn = "p"\n', 3, "unknown key binding 'runn'. Did you mean 'run'?"),
        ('[keys]\nrun = "crtl+p"\n', 2, "'crtl' in 'crtl+p' is not a modifier"),
        ('[keys]\nrun = "spce"\n', 2, "'spce' is not a key"),
        ("[keys]\nrun = 1\n", 2, "run must be a key in quotes"),
        ('[keys]\nrun = ""\n', 2, "run must be a key in quotes"),
        ('[keys]\nrun = "p"\nnext = "x,p"\n', 3, "the key 'p' is on 'run' already"),
        ('theme = "dark"\npanels = ["none.py"]\n', 2, "cannot read the panel file"),
        ('measures = [\n  "a.txt",\n]\n', 2, "must end in .py"),
        ('keys = { run = "spce" }\n', 1, "'spce' is not a key"),
    ],
)
def test_every_mistake_names_its_line(file: Path, text: str, line: int, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config()
    assert str(caught.value).startswith(f"config file {file} line {line}: ")
    assert said in str(caught.value)


def test_lines_are_found_below_their_table() -> None:
    text = '[a]\nx = 1\n["b c"]\nx = 2\n[d.e]\n"x y" = 3\nd = 4'
    assert [line_of(text, "a", "x"), line_of(text, "b c", "x"), line_of(text, "d", "e", "x y"), line_of(text, "d", "e")] == [2, 4, 6, 5]


def test_a_file_that_cannot_be_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"\xff")
    assert main(["config", "show"]) == 2
    assert "is not UTF-8 text (byte 0)" in capsys.readouterr().err
    file.unlink()
    file.mkdir()
    assert main(["config", "show"]) == 2
    assert "cannot read the config file" in capsys.readouterr().err


def test_path_and_show(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["config", "show"]) == 0
    assert "is not there yet" in capsys.readouterr().out
    file.write_text('theme = "none"\n')
    assert main(["config", "show"]) == 2
    shown = capsys.readouterr()
    assert 'theme = "none"' in shown.out
    assert "line 1: unknown theme" in shown.err


def test_edit_makes_the_file_and_says_what_is_wrong_in_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.rmdir()
    monkeypatch.setenv("VISUAL", f'"{sys.executable}" -c "import sys; open(sys.argv[1], chr(97)).write(chr(10) + chr(120))"')
    assert main(["config", "edit"]) == 2
    assert "[layouts]" in file.read_text()
    assert "is not TOML" in capsys.readouterr().err


def test_what_edit_writes_is_right(file: Path) -> None:
    from openmav.cli.config import FIRST

    file.write_text(FIRST)
    assert read_config() == Config()
    for name in ("mine.py", "my_panel.py"):
        (file.parent / name).write_text(PANEL.replace("mine_too", "mlp_norm"))
    (file.parent / "my_measure.py").write_text(MEASURE)
    file.write_text("\n".join(line.removeprefix("# ") if "=" in line else line for line in FIRST.split("\n")))
    assert read_config().keys == {"run": "space,p", "help": "h"}
    assert read_config().layout == "attention"
