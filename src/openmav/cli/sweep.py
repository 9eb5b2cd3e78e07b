"""`mav sweep`: runs a sweep in this process and shows it as a live map, as text, JSON lines or CSV; and one that was recorded."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from openmav.backends.loading.choice import backend_for_many
from openmav.cli.config_file.read import read_config
from openmav.cli.load_limit import load_limit
from openmav.cli.options.settings import model_settings
from openmav.cli.options.values import SweepOptions
from openmav.cli.output import Output, ProgressLine, ReaderGoneError
from openmav.errors import UsageError
from openmav.record.sweep import Effect, Plan, SweepEnd
from openmav.recording.sweep import RecordedSweep, SweepRecorder
from openmav.settings import Settings
from openmav.system.logs import redirect, say, stdout
from openmav.system.signals import Interrupted, check, finish, hold

PLAIN_WIDTH = 100  # cells where there is no terminal
LEAST_ROWS = 3
EVERY = 0.1  # seconds between two drawings


class SweepWriter(Protocol):
    """A way to show a sweep."""

    def begin(self, plan: Plan) -> None: ...

    def add(self, effect: Effect) -> None: ...

    def end(self, reason: SweepEnd, count: int, seconds: float) -> None: ...


def sweep_command(options: SweepOptions) -> int:
    """Run it; 0, or 130 after Ctrl-C, which keeps and shows what is done.

    Raises MavError where the model can't be loaded, or for a target that is not one token.
    """
    if options.json and options.csv:
        raise UsageError("--json and --csv exclude each other; leave one out")
    settings = model_settings(options)
    settings = replace(settings, backend=backend_for_many(settings.backend, settings.model))
    redirect(descriptors=True)
    out = Output(stdout())
    recorder = SweepRecorder(options.record, settings, lambda why: say(f"mav: {why}; the sweep goes on")) if options.record else None
    try:
        return _run(settings, options, [*([recorder] if recorder else []), _writer(options, out)])
    except ReaderGoneError:
        return 0
    finally:
        if recorder is not None:
            recorder.close()


def replay_sweep(sweep: RecordedSweep, theme: str | None) -> int:
    """Print the map of a recorded sweep."""
    writer = Map(Output(stdout()), theme or read_config().theme)
    writer.print(sweep.plan, sweep.effects)
    return 0


def _writer(options: SweepOptions, out: Output) -> SweepWriter:
    if options.json or options.csv:
        from openmav.apps.text.sweep_table import CsvTable, JsonTable

        return (JsonTable if options.json else CsvTable)(out.write)
    return Map(out, read_config().theme if out.terminal else None)


def _run(settings: Settings, options: SweepOptions, writers: Sequence[SweepWriter]) -> int:
    from openmav.analysis.sweep import Sweep

    progress, count, exit_code = ProgressLine(), 0, 0
    reason: SweepEnd = "done"
    with _opened(settings, progress) as session:
        progress("checking which sites can be modified")
        sweep = Sweep(session, options.ablate, options.target, options.minus, "mean" if options.mean else "zero")
        progress.clear()
        for writer in writers:
            writer.begin(sweep.plan)
        started = time.perf_counter()
        try:
            for effect in sweep:
                with hold():  # what is shown is counted
                    for writer in writers:
                        writer.add(effect)
                    count += 1
                check()
        except Interrupted as interrupt:
            reason, exit_code = "interrupt", interrupt.exit_code
        finish()
        seconds = time.perf_counter() - started
        for writer in writers:
            writer.end(reason, count, seconds)
    return exit_code


@contextmanager
def _opened(settings: Settings, progress: ProgressLine) -> Iterator[Any]:
    """A session with the model; closed at the end, and the line of its progress gone."""
    from openmav.generation.opening import open_session

    try:
        with load_limit(settings.load_timeout):
            session = open_session(settings, progress)
        check()
        try:
            yield session
        finally:
            session.close()
    finally:
        progress.clear()


class Map:
    """The heat map: redrawn as effects come in a terminal, written once at the end elsewhere."""

    def __init__(self, out: Output, theme: str | None) -> None:
        from rich.console import Console
        from rich.live import Live

        from openmav.paint import PALETTES

        colour = out.terminal and not os.environ.get("NO_COLOR")
        self._out = out
        self._palette = PALETTES[theme or "dark"] if colour else PALETTES["mono"]
        self._effects: list[Effect] = []
        self._plan: Plan | None = None
        self._next = 0.0  # when it may be drawn again
        self._console = Console(file=stdout(), highlight=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def begin(self, plan: Plan) -> None:
        self._plan = plan
        if self._out.terminal:
            self._live.start()
            self._redraw()

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)
        if self._out.terminal and time.monotonic() >= self._next:
            self._redraw()
            self._next = time.monotonic() + EVERY

    def end(self, reason: SweepEnd, count: int, seconds: float) -> None:
        """The whole map stays, however many layers it has."""
        assert self._plan is not None
        self._live.stop()
        self.print(self._plan, self._effects)

    def print(self, plan: Plan, effects: Sequence[Effect]) -> None:
        """The whole map of a sweep that has ended, once."""
        from rich.console import Console

        self._plan, self._effects = plan, list(effects)
        writer = Console(width=self._width, highlight=False, markup=False, force_terminal=self._out.terminal, legacy_windows=False)
        with writer.capture() as written:
            writer.print(self._drawing(None, ended=True))
        self._out.write(written.get() + "\n")

    @property
    def _width(self) -> int:
        return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if self._out.terminal else PLAIN_WIDTH

    def _redraw(self) -> None:
        from openmav.apps.text.sweep_map import height_around

        assert self._plan is not None
        room = self._console.size.height - height_around(self._plan) - 1
        self._live.update(self._drawing(max(LEAST_ROWS, room), ended=False), refresh=True)

    def _drawing(self, rows: int | None, *, ended: bool) -> Any:
        from rich.segment import Segment, Segments

        from openmav.apps.text.sweep_map import draw

        assert self._plan is not None
        lines = draw(self._plan, self._effects, self._width, self._palette, rows, ended)
        return Segments([segment for at, line in enumerate(lines) for segment in [*[Segment.line()] * (at > 0), *line]])
