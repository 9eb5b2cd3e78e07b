"""Tokens per second with the app shown, against the same session with nothing around it."""

from __future__ import annotations

from functools import partial

import slices
import terminal
from common import DEMO, REAL_MODEL, Counts, Figure, Model, Section, cores, median, note, ratio, spread
from openmav.panels import needs
from openmav.view.layouts import LAYOUTS

TITLE = "Speed kept with the app shown"
KEEPS = 0.9  # of the session alone
HOW = (
    "The real command with --refresh-rate 0 in a pseudo terminal of {columns}x{rows}, all default panels shown, its model in a process of "
    "its own with {threads} of {cores} cores for torch; tokens are counted as they reach the app. Against it the same session in a process "
    "with nothing around it, with as many threads, and with torch's own number. All are loaded first; then they take turns, each going on "
    "for a slice of {slices} s while the others are stopped, the first quarter of it not counted. {runs} such runs of up to {rounds} "
    "slices each; a ratio is the median over all neighbouring slices, beside it the least and greatest median of a run."
)
HOW_LAYOUTS = (
    "The same with each layout, on the demo model: against a session with nothing around it that computes what the layout's panels "
    "need, both with {threads} of torch's threads. What the panels' numbers cost the model stands in a table of its own."
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
    for name in LAYOUTS if counts.rounds > 1 else ("focus",):
        note(f"app: {name}")
        layouts.append(_layout(name, counts))
    lengths = " or ".join(f"{counts.app_slice[model.title]:g}" for model in counts.models)
    size = {"columns": terminal.COLUMNS, "rows": terminal.ROWS}
    how = HOW.format(threads=_threads(), cores=cores(), slices=lengths, runs=counts.app_runs, rounds=counts.app_rounds, **size)
    return [
        Section(TITLE, how, figures),
        Section("Speed kept with a layout shown", HOW_LAYOUTS.format(threads=_threads()), layouts),
    ]


def _threads() -> int:
    """What the app leaves to torch."""
    return max(1, cores() - 1)


def _compare(model: Model, counts: Counts) -> list[Figure]:
    tokens = counts.app_tokens
    found = _turns(
        model,
        counts,
        app=partial(slices.with_app, model.name, tokens),
        alone=partial(slices.alone, model.name, tokens, _threads()),
        free=partial(slices.alone, model.name, tokens, 0),
    )
    alone = f"{model.title}, against the session alone"
    return [
        _kept(f"{alone}, as many threads", found, "alone", KEEPS),
        _kept(f"{alone}, torch's own threads", found, "free", None),
    ]


def _layout(name: str, counts: Counts) -> Figure:
    """One layout in the app, against what it needs alone."""
    tokens, measures = counts.app_tokens, ",".join(sorted(needs(LAYOUTS[name])))
    found = _turns(
        DEMO,
        counts,
        app=partial(slices.with_app, DEMO.name, tokens, "--layout", name),
        alone=partial(slices.alone, DEMO.name, tokens, _threads(), measures),
    )
    return _kept(f"layout {name}", found, "alone", KEEPS)


def _turns(model: Model, counts: Counts, **sides: slices.Side) -> list[dict[str, list[float]]]:
    return [slices.compare(sides, counts.app_rounds, counts.app_slice[model.title]) for _ in range(counts.app_runs)]


def _kept(what: str, runs: list[dict[str, list[float]]], base: str, least: float | None) -> Figure:
    """The app's tokens per second against those of a session, slice by slice."""
    app, alone = ([speed for run in runs for speed in run[name]] for name in ("app", base))
    shares = [ratio(run["app"], run[base]) for run in runs]
    measured = f"{median(app):.1f} tok/s against {median(alone):.1f} tok/s, ratio {spread(shares)} over {len(app)} slices"
    return Figure(what, measured, ratio(app, alone), least=least)
