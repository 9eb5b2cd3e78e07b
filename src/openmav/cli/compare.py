"""`mav compare`: two runs in lockstep on the same tokens, in the app, as text or JSON lines, with an exit code by --max-kl."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from openmav.cli.load_limit import load_limit
from openmav.cli.options.settings import model_settings
from openmav.cli.options.values import CompareOptions, RunsModelOptions
from openmav.cli.output import Output, ProgressLine, ReaderGoneError, echo
from openmav.cli.run import APP_REFRESH, app_threads, interventions_of
from openmav.cli.stream import record_state
from openmav.errors import UsageError
from openmav.record.comparison import MEASURES
from openmav.recording.recorder import Recorder
from openmav.settings import AUTO, CORE_MEASURES, DEMO, Settings
from openmav.settings.sampling import SamplingOptions
from openmav.system.logs import redirect, say, stdout
from openmav.system.signals import Interrupted, check, finish, hold
from openmav.system.terminal import is_terminal

if TYPE_CHECKING:
    from openmav.analysis.compare import ComparedToken, Lockstep, Totals
    from openmav.generation.session import Session

TWICE = ("model", "backend", "device", "dtype", "prompt")  # flags of A, then of B
DEFAULTS = {"model": DEMO, "backend": AUTO, "device": "auto", "dtype": "auto", "prompt": None}


class ComparisonWriter(Protocol):
    """A way to show a comparison."""

    def begin(self, pair: Lockstep) -> None: ...

    def add(self, one: ComparedToken) -> None: ...

    def end(self, reason: str, totals: Totals, within: bool | None) -> None: ...


def compare_command(options: CompareOptions) -> int:
    """In the app its exit code.

    Else 0, 1 where a token's divergence is above --max-kl, 130 after Ctrl-C, which keeps and shows what is done.

    Raises MavError where a model can't be loaded, or the two have different vocabularies.
    """
    a, b = (_settings(options, side) for side in (0, 1))
    if _in_app(options):
        from openmav.cli.app import app_options, show_app

        a, b = (replace(one, threads=app_threads(one.threads), refresh_rate=APP_REFRESH) for one in (a, b))
        a = replace(a, measures=CORE_MEASURES, compared=b, parting=options.threshold)
        return show_app(a, app_options(None, None, compares=True), record=options.record)
    redirect(descriptors=True)
    out = Output(stdout())
    try:
        return _run(a, b, options, _writer(options, out))
    except ReaderGoneError:
        return 0


def _in_app(options: CompareOptions) -> bool:
    """In a terminal, unless the output or its verdict is asked for. Raises UsageError for flags that exclude each other."""
    if options.plain and options.json:
        raise UsageError("--plain and --json exclude each other; leave one out")
    printed = options.plain or options.json or options.max_kl is not None
    return not printed and is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _settings(options: CompareOptions, side: Literal[0, 1]) -> Settings:
    """What one of both runs is to do."""
    given = {one.name: getattr(options, one.name) for one in fields(RunsModelOptions)}
    for name in TWICE:
        values = given[name]
        if len(values) > 2:
            raise UsageError(f"--{name} can be given twice, for A and for B, and not {len(values)} times")
        given[name] = values[min(side, len(values) - 1)] if values else DEFAULTS[name]
    return replace(
        model_settings(RunsModelOptions(**given)),
        max_new_tokens=options.max_new_tokens,
        sampling=SamplingOptions(temperature=options.temp, seed=options.seed),
        measures=MEASURES if options.record is None else CORE_MEASURES,
        interventions=interventions_of(options) if side else (),
    )


def _writer(options: CompareOptions, out: Output) -> ComparisonWriter:
    if options.json:
        from openmav.apps.text.compare_lines import JsonComparison

        return JsonComparison(out.write)
    from openmav.apps.text.compare_text import TextComparison

    return TextComparison(echo)


def _run(a: Settings, b: Settings, options: CompareOptions, writer: ComparisonWriter) -> int:
    from openmav.analysis.compare import Totals

    totals, exit_code = Totals(), 0
    with _opened(a, b, options) as pair, _recorded(pair, options.record):
        reason: str = "length"
        writer.begin(pair)
        try:
            for one in pair:
                with hold():  # what is shown is counted
                    totals.add(one)
                    writer.add(one)
                check()
            reason = pair.reason or reason
        except Interrupted as interrupt:
            reason, exit_code = "interrupt", interrupt.exit_code
        finish()
        within = None if options.max_kl is None else totals.within(options.max_kl)
        writer.end(reason, totals, within)
    return exit_code or int(within is False)


@contextmanager
def _opened(a: Settings, b: Settings, options: CompareOptions) -> Iterator[Lockstep]:
    """Both sessions; closed at the end, and the line of their progress gone."""
    from openmav.analysis.compare import Lockstep
    from openmav.generation.opening import open_pair

    progress = ProgressLine()
    try:
        with load_limit(a.load_timeout):
            first, second = open_pair(a, b, progress)
        check()
        try:
            for session in (first, second):
                session.prefill(progress)
            progress.clear()
            yield Lockstep(first, second, options.threshold)
        finally:
            second.close()
            first.close()
    finally:
        progress.clear()


@contextmanager
def _recorded(pair: Lockstep, record: str | None) -> Iterator[None]:
    """Both runs also in files: A's, with the comparison, as run.mav, and B's as run.b.mav."""
    if record is None:
        yield
        return
    recorders: list[tuple[Recorder, Session]] = []
    try:
        path = Path(record)
        beside = path.parent / f"{path.stem}.b{path.suffix or '.mav'}"
        settings = replace(pair.a.settings, compared=pair.b.settings, parting=pair.threshold)
        try:
            for file, session, own in ((path, pair.a, settings), (beside, pair.b, pair.b.settings)):
                recorders.append((Recorder(file, own, lambda why: say(f"mav: {why}; the run goes on")), session))
        except UsageError:  # one file without the other is of no use
            while recorders:
                recorders.pop()[0].writer.remove()
            raise
        yield
    finally:
        for recorder, session in recorders:
            record_state(recorder, session)
            recorder.close()
