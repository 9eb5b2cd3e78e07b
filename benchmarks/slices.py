"""Runs of a model that take turns in slices of time: all are loaded and one goes on while the others are stopped, so that what moves
the machine's speed moves all of them alike. POSIX only, as terminal.py is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import terminal
from common import in_turn

CHILD = str(Path(__file__).with_name("child.py"))
PATIENCE = 120.0  # seconds until the first token
SETTLE = 0.25  # share of a slice that is not counted: the caches fill, the app draws what it has missed


class Run:
    """A process group that writes its stamps to a file; going when made."""

    def __init__(self, file: Path, pid: int, wait: Callable[[float], None]) -> None:
        self.file, self.pid = file, pid
        self.wait = wait  # lets seconds pass while it runs

    def load(self) -> None:
        """Waits for the first tokens, then stops. Raises RuntimeError where none come."""
        until = time.monotonic() + PATIENCE
        while len(self._stamps()) < 2:
            if time.monotonic() > until:
                raise RuntimeError(f"no token after {PATIENCE:.0f} s")
            self.wait(0.1)
        self.tell(signal.SIGSTOP)

    def go(self, seconds: float) -> float | None:
        """Tokens per second in this slice; None once the text has ended."""
        began = time.monotonic() + SETTLE * seconds
        self.tell(signal.SIGCONT)
        self.wait(seconds)
        self.tell(signal.SIGSTOP)
        stamps = [one for one in self._stamps() if one[0] >= began]
        if len(stamps) < 2:
            return None
        return sum(tokens for _, tokens in stamps[1:]) / (stamps[-1][0] - stamps[0][0])

    def tell(self, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, which)

    def _stamps(self) -> list[tuple[float, int]]:
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.exists() else []
        return [(float(when), int(tokens)) for when, tokens in (line.split() for line in lines if line.endswith("\n"))]


@contextlib.contextmanager
def with_app(model: str, tokens: int, *more: str) -> Iterator[Run]:
    """The real command in a terminal, with more flags."""
    flags = ["--model", model, "--max-new-tokens", str(tokens), "--refresh-rate", "0", *more]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stamps"
        with terminal.Terminal([sys.executable, CHILD, "app", str(file), *flags]) as screen:
            run = Run(file, screen.process.pid, screen.watch)
            try:
                yield run
            finally:
                run.tell(signal.SIGCONT)  # it cannot quit while it is stopped


@contextlib.contextmanager
def alone(model: str, tokens: int, threads: int, measures: str = "") -> Iterator[Run]:
    """A session in a process of its own, with these measures or with the default ones."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stamps"
        command = [sys.executable, CHILD, "session", str(file), model, str(tokens), str(threads), measures]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
            try:
                yield Run(file, process.pid, time.sleep)
            finally:
                process.kill()


Side: TypeAlias = Callable[[], contextlib.AbstractContextManager[Run]]


def compare(sides: Mapping[str, Side], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Tokens per second of each side in each round; fewer rounds where a text ends before."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        runs: dict[str, Run] = {}
        for name, side in sides.items():
            runs[name] = stack.enter_context(side())
            runs[name].load()
        for turn in range(rounds + 1):
            speeds = {name: runs[name].go(seconds) for name in in_turn(list(runs), turn)}
            made = {name: speed for name, speed in speeds.items() if speed is not None}
            if made.keys() != runs.keys():  # a round counts whole or not at all
                break
            if turn > 0:  # the first round warms
                for name, speed in made.items():
                    found[name].append(speed)
    return found
