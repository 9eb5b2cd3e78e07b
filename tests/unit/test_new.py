"""`mav new`: what it writes works as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import make_info, make_prompt, make_steps
from openmav.cli.main import main
from openmav.generation.opening import open_session
from openmav.panels.base import draw
from openmav.plugins import registry
from openmav.plugins.contracts import has_data
from openmav.plugins.user_files import add_measures, add_panels
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings
from openmav.view import View


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.chdir(tmp_path)


def test_a_new_panel_shows_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "panel", "my_norms"]) == 0
    assert capsys.readouterr().out == "wrote my_norms.py; try it: mav --panel my_norms.py\n"
    assert add_panels(["my_norms.py"]) == ("my_norms",)
    panel = registry.load("panels", "my_norms")
    assert panel.TITLE == "My norms"
    steps = make_steps(2, make_info(3))
    view = View().updated(Snapshot(info=make_info(3), prompt=make_prompt(), steps=steps))
    assert has_data(panel)
    assert draw(panel, view, 40, 2).lines == [f"layer {layer:>3}  {steps[-1].values['residual_norm'][layer]:10.2f}" for layer in (2, 1)]
    assert draw(panel, view, 7, 9).lines == ["layer  "] * 3
    assert draw(panel, View(), 40, 2).lines == ["no token yet"]


def test_a_new_measure_is_computed() -> None:
    assert main(["new", "measure", "my_max.py"]) == 0
    names, files = add_measures(["my_max.py"])
    step = next(iter(open_session(Settings("toy", "Hi", backend="toy", measures=("mlp_norm", *names), measure_files=files))))
    assert (step.values["my_max"] <= step.values["mlp_norm"]).all()
    assert (step.values["my_max"] > 0).all()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["panel", "timeline"], "there is a panel 'timeline' already"),
        (["measure", "mlp_norm"], "there is a measure 'mlp_norm' already"),
        (["panel", "a-b"], "cannot be the name of a panel"),
        (["panel", "../x"], "cannot be the name"),
        (["panel", "class"], "cannot be the name"),
        (["theme", "x"], "panel"),
    ],
)
def test_what_cannot_be_written(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", *args]) == 2
    assert said in capsys.readouterr().err


def test_a_file_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("precious")
    assert main(["new", "panel", "mine"]) == 2
    assert "mine.py exists already" in capsys.readouterr().err
    assert Path("mine.py").read_text() == "precious"
