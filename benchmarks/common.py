"""What every benchmark shares: a figure with its target, rounds that take turns, the table, and the machine."""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
REAL_MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "textual", "rich", "numpy")


@dataclass(frozen=True)
class Model:
    """A model to measure, and the share of bare generate's speed that mav is to keep at each context."""

    title: str
    name: str  # as --model takes it
    keeps: Mapping[int, float]  # {context in tokens: share}


DEMO = Model("demo", "demo", {16: 0.9, 256: 0.9, 1024: 0.9})
REAL = Model("SmolLM2-135M", str(REAL_MODEL), {16: 0.95, 256: 0.95, 1024: 1.0})


@dataclass(frozen=True)
class Counts:
    """How much of everything is measured. `quick` only shows that the benchmarks run; its figures mean nothing."""

    rounds: int
    tokens: int  # a round
    contexts: tuple[int, ...]
    models: tuple[Model, ...]
    starts: int  # of the command
    app_tokens: int  # of a run with the app, at most
    app_slice: Mapping[str, float]  # {title of the model: seconds of a slice of such a run}
    app_rounds: int  # slices of a run
    app_runs: int


FULL = Counts(13, 33, (16, 256, 1024), (DEMO, REAL), 5, 1900, {"demo": 0.5, "SmolLM2-135M": 2.0}, 12, 3)
QUICK = Counts(1, 3, (16,), (DEMO,), 1, 1900, {"demo": 0.3}, 1, 1)


@dataclass(frozen=True)
class Figure:
    """One line of the table. `compared` is what the target is about: at least `least`, at most `most`; None: no target."""

    what: str
    measured: str
    compared: float | None = None
    least: float | None = None
    most: float | None = None
    unit: str = ""  # of compared; "" is a ratio

    @property
    def has_target(self) -> bool:
        return self.compared is not None and (self.least is not None or self.most is not None)

    @property
    def met(self) -> bool:
        assert self.compared is not None
        return (self.least is None or self.compared >= self.least) and (self.most is None or self.compared <= self.most)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        compared = "" if self.compared is None else f"{self.compared:.2f}{self.unit}"
        sign, bound = ("≥", self.least) if self.least is not None else ("≤", self.most)
        target = "" if bound is None else f"{sign} {bound:.2f}{self.unit}"
        return self.what, self.measured, compared, target, ("yes" if self.met else "NO") if self.has_target else ""


@dataclass(frozen=True)
class Section:
    """The figures of one benchmark and how they were taken."""

    title: str
    how: str
    figures: Sequence[Figure]


def in_turn(names: Sequence[str], turn: int) -> Sequence[str]:
    """The order of a round: forwards, the next time backwards."""
    return names[:: 1 if turn % 2 == 0 else -1]


def take_turns(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run every side once a round, forwards and backwards in turn, so that a drift of the machine meets all alike; {side: values}."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in in_turn(list(sides), turn):
            found[name].append(sides[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of above / below: both of one round are neighbours in time."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(values: Sequence[float]) -> str:
    """The smallest and the largest, for a reader who doubts a median."""
    return f"{min(values):.2f} to {max(values):.2f}"


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Where the median of such values lies in 95 of 100 cases: of as many, drawn from them with repetition."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return medians[draws // 40], medians[-1 - draws // 40]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


# ---- the machine ---------------------------------------------------------------------------------------------------------


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The CPU's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def machine() -> str:
    """One line: CPU, cores, system, versions."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor()}, {cores()} cores; {system}; {', '.join(map(_version, PACKAGES))}"


# ---- what is printed -----------------------------------------------------------------------------------------------------

HEADINGS = ("what", "measured", "compared", "target", "met")


def table(figures: Sequence[Figure]) -> list[str]:
    """Lines of a Markdown table that is aligned as plain text too."""
    rows = [HEADINGS, *(figure.cells for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def note(text: str) -> None:
    """What is going on, on stderr: stdout holds the table only."""
    print(text, file=sys.stderr, flush=True)
