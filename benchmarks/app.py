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
    "need, both with {threads} of torch's threads, {columns}x{rows}, {rounds} rounds. What the panels' numbers cost the model "
    "stands in a table of its own."
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
    alone = f"{model.title}, against the session alone"
    return [
        _kept(f"{alone}, as many threads", found["app"], found["alone"], KEEPS),
        _kept(f"{alone}, torch's own threads", found["app"], found["free"], None),
    ]


def _kept(what: str, app: list[float], alone: list[float], least: float | None) -> Figure:
    """The app's tokens per second against those of a session, round by round."""
    shares = [a / b for a, b in zip(app, alone, strict=True)]
    measured = f"{median(app):.1f} tok/s against {median(alone):.1f} tok/s, ratio {spread(shares)}"
    return Figure(what, measured, ratio(app, alone), least=least)


def _layout(name: str, counts: Counts) -> Figure:
    """One layout in the app, against what it needs alone."""
    tokens = counts.app_tokens[DEMO.title]
    measures = ",".join(sorted(needs(LAYOUTS[name])))
    sides: dict[str, Callable[[], float]] = {
        "app": lambda: _with_app(DEMO.name, tokens, "--layout", name),
        "alone": lambda: _alone(DEMO.name, tokens, _threads(), measures),
    }
    found = take_turns(counts.app_rounds, sides)
    return _kept(f"layout {name}", found["app"], found["alone"], KEEPS)


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
