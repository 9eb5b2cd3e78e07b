"""Panels and measures in a file of one's own: what is accepted, and what each mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from openmav import registry
from openmav.errors import EngineError, UsageError
from openmav.opening import open_session
from openmav.settings import CORE_MEASURES, Settings

PANEL = 'TITLE = "Mine"\nNEEDS = ("mlp_norm",)\nHELP = "What it shows: x."\ndef render(view, width, height):\n    return []\n'
MEASURE = (
    '"""Mine."""\nimport numpy as np\nTITLE = "mine"\nNEEDS = ("mlp.out",)\n'
    'def compute(frame, context):\n    return np.array([float(x.max()) for x in frame.sites["mlp.out"]], dtype=np.float32)\n'
)


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_a_panel(tmp_path: Path) -> None:
    assert registry.add_file("panels", written(tmp_path, PANEL)) == "mine"
    assert "mine" in registry.names("panels")
    assert registry.load("panels", "mine").TITLE == "Mine"
    assert registry.load("panels", "mine") is registry.load("panels", "mine")
    assert "mine" not in registry.names("measures")


def test_a_file_is_known_before_it_is_run(tmp_path: Path) -> None:
    name = registry.add_file("measures", written(tmp_path, "raise RuntimeError\n"))
    assert name in registry.names("measures")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def render(:\n", r"mine\.py' line 1 is not Python"),
        ("import nothing_of_this_name\n", r"line 1 does not import: ModuleNotFoundError"),
        (PANEL + "1 / 0\n", r"line 6 does not import: ZeroDivisionError: division by zero"),
        ("raise SystemExit\n", r"line 1 does not import: SystemExit"),
        (PANEL.replace("TITLE", "TITEL"), r'needs TITLE = "\.\.\.", a text'),
        (PANEL.replace('"Mine"', "3"), r'needs TITLE = "\.\.\.", a text'),
        (PANEL.replace("HELP", "HLP"), r'needs HELP = "\.\.\.", a text'),
        (PANEL.replace('("mlp_norm",)', '"mlp_norm"'), r"needs NEEDS = .*the names of measures"),
        (PANEL.replace("render", "draw"), r"needs a function render\(view, width, height\)"),
        (PANEL.replace(", height", ""), r"render that does not take render\(view, width, height\)"),
        ("x = '\0'\n", r"is not Python"),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        registry.load("panels", registry.add_file("panels", written(tmp_path, text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("mine.txt", "must end in .py"), ("my-panel.py", "letters, digits and _"), ("_x.py", "not begin with _"), ("class.py", "letters")],
)
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.add_file("panels", written(tmp_path, PANEL, name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the panel file '.*none\.py': No such file"):
        registry.add_file("panels", str(tmp_path / "none.py"))


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is a panel 'timeline' already"):
        registry.add_file("panels", written(tmp_path, PANEL, "timeline.py"))
    registry.add_file("panels", written(tmp_path, PANEL))
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match="two panel files are called 'mine'"):
        registry.add_file("panels", written(tmp_path / "b", PANEL))


def test_the_session_computes_a_measure_of_ones_own(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE)
    settings = Settings("toy", "Hi", backend="toy", measures=(*CORE_MEASURES, "mine"), measure_files=(file,), max_new_tokens=2)
    steps = list(open_session(settings))
    assert [step.values["mine"].shape for step in steps] == [steps[0].values["mlp_norm"].shape] * 2


def test_a_measure_that_needs_no_known_site(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE.replace("mlp.out", "mlp.inside"))
    settings = Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,))
    with pytest.raises(UsageError, match=r"measure 'mine' needs the site 'mlp\.inside', which there is not"):
        open_session(settings)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", r"mine\.py' line 6 failed: ZeroDivisionError: division by zero"),
        ("return [1.0]", r"gave list for 'mine', not a numpy array of numbers"),
        ("return np.array(['a'])", r"gave ndarray for 'mine', not a numpy array of numbers"),
        ("return {'other': np.zeros(2)}", r"gave an array 'other'; its name must begin with 'mine'"),
        ("return frame.logits", r"gave Tensor for 'mine', not a numpy array of numbers"),
    ],
)
def test_a_measure_that_fails_is_one_line(tmp_path: Path, body: str, said: str) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + f"    {body}\n")
    session = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,)))
    with pytest.raises(EngineError, match=said):
        session.step()


def test_a_measure_may_have_parts(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + "    return {'mine': np.zeros(2), 'mine.ids': np.ones(3, dtype=int)}\n")
    step = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,))).step()
    assert (step.values["mine"].shape, step.values["mine.ids"].shape) == ((2,), (3,))
