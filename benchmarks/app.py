"""Tokens per second with the app shown, against the same session with nothing around it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import terminal
from common import DEMO, REAL_MODEL, Counts, Figure, Model, Section, cores, median, note, ratio, spread, take_turns
from openmav.apps.layouts import LAYOUTS
from openmav.panels import needs

TITLE = "Speed kept with the app shown"
KEEPS = 0.9  # of the session alone
CHILD = str(Path(__file__).with_name("child.py"))
HOW = (
    "The real command with --refresh-rate 0 in a pseudo terminal of {columns}x{rows}, all default panels shown, its model in a process of "
    "its own with {threads} of {cores} cores for torch; tokens are counted as they reach the app. Against it the same session in a process "
    "with nothing around it, with as many threads, and with torch's own number. All take turns, {rounds} rounds."
)
HOW_LAYOUTS = (
    "The same with each layout, on the demo model: against a session with nothing around it that computes what the layout's panels "
    "need, both with {threads} of torch's threads, {columns}x{rows}, {rounds} rounds. What the panels' numbers cost the model is "
    "another figure, above."
)


def run(counts: Counts) -> list[Section]:
    if not terminal.AVAILABLE:
        return [Section(TITLE, terminal.UNAVAILABLE, [])]
    figures: list[Figure] = []
    for model in counts.models:
        if model.name != str(REAL_MODEL) or REAL_MODEL.is_dir():
            note(f"app: {model.title}")
            figures += _compare(model, counts)
    layouts = []
    for name in LAYOUTS:
        note(f"app: {name}")
        layouts.append(_layout(name, counts))
    how = HOW.format(columns=terminal.COLUMNS, rows=terminal.ROWS, threads=_threads(), cores=cores(), rounds=counts.app_rounds)
    shown = HOW_LAYOUTS.format(columns=terminal.COLUMNS, rows=terminal.ROWS, threads=_threads(), rounds=counts.app_rounds)
    return [Section(TITLE, how, figures), Section("Speed kept with a layout shown", shown, layouts)]


def _threads() -> int:
    """What the app leaves to torch."""
    return max(1, cores() - 1)


def _compare(model: Model, counts: Counts) -> list[Figure]:
    tokens = counts.app_tokens[model.title]
    sides: dict[str, Callable[[], float]] = {
        "app": lambda: _with_app(model.name, tokens),
        "alone": lambda: _alone(model.name, tokens, _threads()),
        "free": lambda: _alone(model.name, tokens, 0),
    }
    found = take_turns(counts.app_rounds, sides)
    app = found["app"]
    figures = []
    for side, what, least in (
        ("alone", "the session alone, as many threads", KEEPS),
        ("free", "the session alone, torch's own threads", None),
    ):
        shares = [a / b for a, b in zip(app, found[side], strict=True)]
        measured = f"{median(app):.1f} tok/s against {median(found[side]):.1f} tok/s, ratio {spread(shares)}"
        figures.append(Figure(f"{model.title}, against {what}", measured, ratio(app, found[side]), least=least))
    return figures


def _layout(name: str, counts: Counts) -> Figure:
    """One layout in the app, against what it needs alone."""
    tokens = counts.app_tokens[DEMO.title]
    measures = ",".join(sorted(needs(LAYOUTS[name])))
    sides: dict[str, Callable[[], float]] = {
        "app": lambda: _with_app(DEMO.name, tokens, "--layout", name),
        "alone": lambda: _alone(DEMO.name, tokens, _threads(), measures),
    }
    found = take_turns(counts.app_rounds, sides)
    shares = [a / b for a, b in zip(found["app"], found["alone"], strict=True)]
    measured = f"{median(found['app']):.1f} tok/s against {median(found['alone']):.1f} tok/s, ratio {spread(shares)}"
    return Figure(f"layout {name}", measured, ratio(found["app"], found["alone"]), least=KEEPS)


def _with_app(model: str, tokens: int, *more: str) -> float:
    """Tokens per second of a run in a terminal."""
    flags = ["--model", model, "--max-new-tokens", str(tokens), "--refresh-rate", "0", *more]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        with terminal.Terminal([sys.executable, CHILD, "app", str(file), *flags]) as screen:
            screen.seconds_until(r"ended: \w")
        return _speed(file)


def _alone(model: str, tokens: int, threads: int, measures: str = "") -> float:
    """Tokens per second of a session in a process of its own, with these measures or with the default ones."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        subprocess.run(
            [sys.executable, CHILD, "session", str(file), model, str(tokens), str(threads), measures], check=True, stderr=subprocess.DEVNULL
        )
        return _speed(file)


def _speed(file: Path) -> float:
    times: list[float] = json.loads(file.read_text(encoding="utf-8"))
    return (len(times) - 1) / (times[-1] - times[0])
