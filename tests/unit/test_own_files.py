"""Panels and measures in a file of one's own: what is accepted, and what each mistake says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.panels import draw
from openmav.plugins import contracts, registry
from openmav.settings import CORE_MEASURES, Settings
from openmav.view import View

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
        (PANEL.replace("view, width, height", "data, box"), r"render\(view, width, height\), or data\(view\) and render\(data, box\)"),
        (PANEL.replace("view, width, height", "data, box") + "def data():\n    return 1\n", r"data that does not take data\(view\)"),
        ("x = '\0'\n", r"is not Python"),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        registry.load("panels", registry.add_file("panels", written(tmp_path, text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", ["data = [1, 2]\n", "def data(view):\n    return 1\n"])
def test_a_panel_that_renders_the_view_may_have_something_called_data(tmp_path: Path, more: str) -> None:
    panel = registry.load("panels", registry.add_file("panels", written(tmp_path, PANEL.replace("[]", "['view']") + more)))
    assert draw(panel, View(), 40, 3).lines == ["view"]


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
def test_a_measure_that_fails_is_one_line_and_the_run_goes_on(tmp_path: Path, body: str, said: str) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + f"    {body}\n")
    settings = Settings("toy", "Hi", backend="toy", measures=("mine", "mlp_norm"), measure_files=(file,), max_new_tokens=3)
    session = open_session(settings)
    steps = list(session)
    assert len(steps) == 3
    assert all("mine" not in step.values and "mlp_norm" in step.values for step in steps)
    assert re.search(said, session.broken["mine"])
    assert session.broken["mine"] in session.info.notes
    assert session.info.why_missing("mine", 0) == session.broken["mine"]


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "raise KeyboardInterrupt", "raise GeneratorExit", "raise BaseException('x')"])
def test_whatever_a_measure_raises_the_run_goes_on(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + f"    {line}\n")
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # as in the command, where Ctrl-C is no KeyboardInterrupt
    session = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,), max_new_tokens=2))
    assert len(list(session)) == 2
    assert session.broken


def test_beside_an_app_a_measure_that_hangs_is_given_up_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "MEASURE_LIMIT", 0.3)
    file = written(tmp_path, MEASURE.partition("    return")[0] + "    while True: pass\n")
    session = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,), max_new_tokens=3))
    named: list[str] = []
    session.name_measure(named.append)
    assert len(list(session)) == 3
    assert re.search(r"measure 'mine' has taken 0 s for one token", session.broken["mine"])
    assert named == ["mine", ""], "called once only"
    end = time.monotonic() + 60
    while any(thread.name == "mav own measure" for thread in threading.enumerate()):
        assert time.monotonic() < end, "its thread goes on"
        time.sleep(0.01)


COMMAND = """
import sys
from openmav.plugins import contracts
contracts.MEASURE_LIMIT = float(sys.argv.pop(1))
from openmav.cli.main import main
sys.exit(main())
"""
HANGS = "    import pathlib, time\n    (pathlib.Path(__file__).parent / 'called').touch()\n    time.sleep(600)\n"


def command(folder: Path, limit: float, *flags: str) -> subprocess.Popen[str]:
    """mav with a measure that hangs, which is given up after `limit` seconds."""
    file = written(folder, MEASURE.partition("    return")[0] + HANGS)
    toy = ("--backend", "toy", "--model", "toy", "--prompt", "Hi", "--max-new-tokens", "3", "--measure", file)
    line = [sys.executable, "-c", COMMAND, str(limit), *flags, *toy]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "XDG_STATE_HOME": str(folder)}
    )


def test_without_an_app_a_measure_that_hangs_is_given_up_with_a_note(tmp_path: Path) -> None:
    out, err = command(tmp_path, 0.2, "--json").communicate(timeout=60)
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["header", "step", "step", "step", "end"]
    assert "mav: note: measure 'mine' has taken 0 s for one token and is no longer computed" in err


@pytest.mark.skipif(os.name == "nt", reason="a signal to one process")
def test_ctrl_c_is_obeyed_while_a_measure_hangs(tmp_path: Path) -> None:
    run = command(tmp_path, 60, "--plain")
    end = time.monotonic() + 60
    while not (tmp_path / "called").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130


def test_beside_an_app_a_measure_has_the_same_values(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE)
    settings = Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,), max_new_tokens=2)
    alone, beside = open_session(settings), open_session(settings)
    beside.name_measure(lambda _: None)
    for one, other in zip(alone, beside, strict=True):
        assert one.values["mine"].tobytes() == other.values["mine"].tobytes()


def test_ctrl_c_in_a_program_that_uses_mav_ends_it(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + "    raise KeyboardInterrupt\n")
    session = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,)))
    with pytest.raises(KeyboardInterrupt):
        session.step()


def test_a_file_may_hold_dataclasses_with_annotations_for_later(tmp_path: Path) -> None:
    more = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Box:\n    x: int = 1\n"
    assert registry.load("panels", registry.add_file("panels", written(tmp_path, more + PANEL))).Box().x == 1


CACHES = (registry._points, registry._shipped, registry._of_package)


class Point:
    """An entry point of an installed package."""

    def __init__(self, name: str, error: BaseException | None = None) -> None:
        self.name, self.value, self.error = name, f"package.{name}", error

    def load(self) -> object:
        if self.error is not None:
            raise self.error
        return ModuleType(self.name)


@pytest.mark.parametrize("error", [ImportError("gone"), RuntimeError("x"), SystemExit(2), SyntaxError("y")])
def test_a_broken_package_does_not_stop_a_run_that_does_not_ask_for_it(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Points:
        def select(self, group: str) -> list[Point]:
            return [Point("theirs", error)] if group == "openmav.measures" else []

    def entry_points() -> Points:
        nonlocal read
        read += 1
        return Points()

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    for cached in CACHES:
        cached.cache_clear()
    try:
        session = open_session(Settings("toy", "Hi", backend="toy", max_new_tokens=2))
        assert len(list(session)) == 2
        with pytest.raises(UsageError, match=r"measure 'theirs' of package\.theirs does not import"):
            session.want(["theirs"])
        assert "mlp_norm" in session._runner.measures, "what was wanted stays where something else can't be had"
        for _ in range(20):
            registry.names("measures")
            registry.names("panels")
        assert read == 1, "the metadata of all packages is searched once, for all kinds"
    finally:
        for cached in CACHES:
            cached.cache_clear()


def test_a_measure_may_have_parts(tmp_path: Path) -> None:
    file = written(tmp_path, MEASURE.partition("    return")[0] + "    return {'mine': np.zeros(2), 'mine.ids': np.ones(3, dtype=int)}\n")
    step = open_session(Settings("toy", "Hi", backend="toy", measures=("mine",), measure_files=(file,))).step()
    assert (step.values["mine"].shape, step.values["mine.ids"].shape) == ((2,), (3,))
