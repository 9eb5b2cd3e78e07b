"""Health: what often goes wrong while a model generates, each with its number and the threshold that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, note_that_fits, number_text, visible
from openmav.panels.base import Box
from openmav.panels.widgets.health_layers import layer_lines_below, rows_by_layer
from openmav.panels.widgets.layer_rows import message, too_narrow, why_no_step
from openmav.record import Array, Step
from openmav.record.nonfinite import wrong
from openmav.view import View

TITLE = "Health"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm", "sink_share")
ROWS, LEAST_ROWS = 10, 5
DEAD, DEAD_TOKENS = 0.01, 8  # a layer is dead that adds less than this share of the residual stream, for so many tokens
SINK = 0.9  # mean share of attention on the first token, above which attention has collapsed
LOOP, LOOP_TOKENS, PERIOD = 3, 8, 64  # repeats of the same run of tokens in a row, that take so many tokens; the longest run looked for
REPEATED, NGRAM, NGRAM_TOKENS = 0.5, 4, 128  # share of n-grams that came before, their length, and the newest tokens that are looked at
HELP = f"""\
What it shows: five checks of the token under the cursor and those before it. Each row: ✓ passed, ! failed, – not known;
its name; its number; in grey the limit that it is judged by, and where it was found; and where there is room, what is counted.
Below them what each layer adds, as a share of the residual stream, and how much of its attention rests on the first token; where
not all layers fit, the least and the most of both.

How to read it: a row with ! says what to look at. Not finite: the model computed NaN or infinity, often from 16-bit
overflow; the row names measure and layer. Dead layers: layers that add next to nothing; they could be left out. Sink: nearly
all attention rests on the first token, so that the text is hardly read. Loop: the text ends with the same run of tokens over
and over. Repeated: how much of the newest text came before; raise the temperature or the repetition penalty.

Formula: not finite = numbers of this token that are NaN or infinite and should not be; limit 0. Dead = layers where max(MLP,
attention norm) / residual norm stays below {100 * DEAD:.0f} % for {DEAD_TOKENS} tokens; limit 0. Sink = mean over layers and heads of the
attention on the first token; limit {SINK:.2f}. Loop = how often in a row the last run of at most {PERIOD} tokens stands at the end;
it counts where all runs have {LOOP_TOKENS} tokens or more; limit {LOOP}. Repeated = 1 - distinct / all {NGRAM}-grams of the newest
{NGRAM_TOKENS} tokens; limit {REPEATED:.2f}.

Source: the numbers of the panels for norms and sinks; Xiao et al., "Efficient Streaming Language Models with Attention
Sinks" (2023); Welleck et al., "Neural Text Generation with Unlikelihood Training" (2019), for repeated n-grams.

The worst check that failed also stands in the first line of every layout, as far as its numbers are computed there.

What is normal: no ! at all. Sinks of 0.3 to 0.8 are usual in trained models; small models left alone (greedy) soon loop.
"""
NOT_FINITE = "not finite"
GLYPHS = {True: "✓", False: "!", None: "–"}
LABEL, NUMBER = 13, 7
DETAIL = 38  # cells beside the number from which on limit and place stand there
LEAST = 2 + LABEL + NUMBER  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class HealthCheck:
    """One row: `good` is None where it is not known; `limit` is what the number is judged by, `where` the place or the reason."""

    name: str
    good: bool | None
    number: str
    limit: str
    where: str = ""
    means: str = ""  # what is counted, where there is room to say it


@dataclass(frozen=True)
class HealthData:
    empty: str | None  # why there is nothing to show; None where there is
    checks: tuple[HealthCheck, ...]
    cursor: int
    adds: Array | None = None  # [layers] of this token, as a share of the residual stream; None where it is not known
    sinks: Array | None = None  # [layers], the mean over heads of the attention on the first token


def data(view: View) -> HealthData:
    step = view.step
    if step is None:
        return HealthData(why_no_step(view), (), view.cursor)
    mlp, attention, residual, shares = map(view.values, NEEDS)
    return HealthData(
        empty=None,
        checks=tuple(replace(check(view), means=means) for check, means in zip(CHECKS, MEANINGS)),
        cursor=view.cursor,
        adds=None if mlp is None or attention is None or residual is None else _added(mlp, attention, residual),
        sinks=None if shares is None else shares.mean(axis=1),
    )


def _added(mlp: Array, attention: Array, residual: Array) -> Array:
    """What each layer adds at most, as a share of the residual stream; NaN where it is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(residual > 0, np.fmax(mlp, attention) / residual, np.nan)


def _steps(view: View, count: int) -> Sequence[Step]:
    """The newest steps up to the cursor."""
    return view.steps[max(0, view.cursor + 1 - count) : view.cursor + 1]


# ---- the checks ----------------------------------------------------------------------------------------------------------


def bad_places(view: View) -> tuple[int, str]:
    """(numbers that are not finite and should be, where the first of them are: measure and layers)."""
    count, places = 0, []
    for name in view.alarms():
        values = view.values(name)
        if view.step is None or values is None:
            count += 1
            places.append(name)
            continue
        bad = wrong(view.step, name, view.info)
        rows = [row for row in range(len(bad)) if bad[row].any()]
        count += int(bad.sum())
        layers = ", ".join(map(str, rows[:4])) + ("…" if len(rows) > 4 else "")
        places.append(f"{name} layer {layers}" if len(values) == view.layers else name)
    return count, "; ".join(places)


def not_finite(view: View) -> HealthCheck:
    count, where = bad_places(view)
    return HealthCheck(NOT_FINITE, count == 0, str(count), "limit 0", where)


def dead_layers(view: View) -> HealthCheck:
    """Layers whose larger part stays below a share of the residual stream, in every one of the newest tokens."""
    limit, alive = f"< {100 * DEAD:.0f} % for {DEAD_TOKENS} tokens", np.zeros(view.layers, dtype=bool)
    steps = [step for step in _steps(view, DEAD_TOKENS) if all(name in step.values for name in NEEDS[:3])]
    if len(steps) < DEAD_TOKENS:
        return HealthCheck("dead layers", None, "none", limit, f"after {DEAD_TOKENS} tokens")
    known = np.zeros(view.layers, dtype=bool)
    for step in steps:
        added = np.fmax(step.values["mlp_norm"], step.values["attention_norm"])
        residual = step.values["residual_norm"]
        there = np.isfinite(added) & np.isfinite(residual)
        alive |= there & (added >= DEAD * residual)
        known |= there
    dead = np.flatnonzero(known & ~alive)
    where = f"layer {', '.join(map(str, dead[:6]))}{'…' if len(dead) > 6 else ''}" if len(dead) else ""
    return HealthCheck("dead layers", len(dead) == 0, str(len(dead)), limit, where)


def sink(view: View) -> HealthCheck:
    """The mean share of attention on the first token."""
    shares, limit = view.values("sink_share"), f"limit {SINK:.2f}"
    if shares is None or not np.isfinite(shares).any():
        return HealthCheck("sink", None, "none", limit, "no attention rows" if shares is not None else "not captured")
    per_layer = shares.mean(axis=1)
    mean = float(np.nanmean(per_layer))
    return HealthCheck("sink", mean <= SINK, number_text(mean, 2), limit, f"most in layer {int(np.nanargmax(per_layer))}")


def loop_at_end(ids: Sequence[int]) -> tuple[int, int]:
    """(how often the last run of tokens stands at the end in a row, its length): the shortest run that repeats most; (1, 0) for none."""
    best = (1, 0)
    for period in range(1, min(PERIOD, len(ids) // 2) + 1):
        same = 0
        while same < len(ids) - period and ids[-1 - same] == ids[-1 - same - period]:
            same += 1
        repeats = same // period + 1
        if repeats > best[0] and repeats * period >= LOOP_TOKENS:
            best = (repeats, period)
    return best


def loop(view: View) -> HealthCheck:
    steps = _steps(view, 4 * PERIOD)
    repeats, period = loop_at_end([step.token_id for step in steps])
    run = "".join(visible(step.token) for step in steps[-period:]) if period else ""
    return HealthCheck("loop", repeats < LOOP, f"{repeats}×", f"limit {LOOP}×", run)


def repeated_share(ids: Sequence[int]) -> float:
    """1 - distinct / all n-grams; 0 for too few tokens."""
    grams = [tuple(ids[at : at + NGRAM]) for at in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeated(view: View) -> HealthCheck:
    ids = [step.token_id for step in _steps(view, NGRAM_TOKENS)]
    share = repeated_share(ids)
    return HealthCheck("repeated", share <= REPEATED, number_text(share, 2), f"limit {REPEATED:.2f}", f"{NGRAM}-grams of {len(ids)} tokens")


CHECKS: tuple[Callable[[View], HealthCheck], ...] = (not_finite, dead_layers, sink, loop, repeated)
MEANINGS = (
    "values that are infinite, or no numbers",
    "layers that add next to nothing",
    "share of attention on the first token",
    "the same run of tokens over and over",
    "share of the text that came before",
)
WORST_FIRST = (not_finite, sink, loop, repeated, dead_layers)


def alarm(view: View) -> str:
    """The worst check that failed, in a few words, and how many others did; "" for none."""
    failed = [check for check in (check(view) for check in WORST_FIRST) if check.good is False]
    if not failed:
        return ""
    worst, more = failed[0], f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    said = f"NaN or inf in {', '.join(view.alarms())}" if worst.name == NOT_FINITE else f"{worst.name} {worst.number}"
    return f"! {said}{more}"


# ---- drawing -------------------------------------------------------------------------------------------------------------


def _ordered(checks: Sequence[HealthCheck], height: int) -> list[HealthCheck]:
    """As many as fit; where not all do, what failed comes first."""
    if height >= len(checks):
        return list(checks)
    return sorted(checks, key=lambda check: {False: 0, None: 1, True: 2}[check.good])[: max(height, 0)]


def note(data: HealthData, box: Box) -> str:
    if data.empty is not None:
        return ""
    wrong, unknown = (sum(check.good is what for check in data.checks) for what in (False, None))
    hidden = len(data.checks) - len(_ordered(data.checks, box.height))
    parts = [
        f"{wrong} of {len(data.checks)} checks failed" if wrong else "" if unknown else "all checks passed",
        f"{unknown} not known" if unknown else "",
        f"{hidden} more" if hidden else "",
        f"token {data.cursor}",
    ]
    return " · ".join(part for part in parts if part)


def render(data: HealthData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    if box.width < LEAST:
        return too_narrow(box)
    checks, quiet = _ordered(data.checks, box.height), ink(box.palette, "secondary")
    beside, each = box.width >= LABEL + NUMBER + DETAIL, box.height // max(len(checks), 1)
    said = each >= 3 - beside and all(cells(check.means) + 2 <= box.width for check in checks)
    lines: list[Line] = []
    apart = said and box.height - (3 - beside) * len(checks) - rows_by_layer(data.adds, data.sinks) >= len(checks)
    for check in checks:
        lines.append(_row(box, check, beside or each < 2))
        if not beside and each >= 2:
            lines.append([Segment("  " + _detail(check, box.width - 2), quiet)])
        if said:
            lines.append([Segment(f"  {check.means}", quiet)])
        lines += [[]] * apart
    return [*lines, *layer_lines_below(data.adds, data.sinks, box, box.height - len(lines))]


def _detail(check: HealthCheck, room: int) -> str:
    """The limit, and the place where there is one and room for both; what is wrong says first where."""
    parts = (check.where, check.limit) if check.good is False else (check.limit, check.where)
    whole = " · ".join(part for part in parts if part)
    return fit(note_that_fits(whole, room) or whole, room)


def _row(box: Box, check: HealthCheck, with_detail: bool) -> Line:
    bad, quiet = check.good is False, ink(box.palette, "secondary")
    main = ink(box.palette, "warning" if bad else "text" if check.good else "secondary", bold=bad)
    line = [Segment(f"{GLYPHS[check.good]} ", main), Segment(fit(check.name, LABEL), main), Segment(check.number.rjust(NUMBER), main)]
    room = box.width - 2 - LABEL - NUMBER - 2
    return [*line, Segment("  " + _detail(check, room), quiet)] if with_detail and room > 4 else line
