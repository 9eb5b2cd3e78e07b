"""Health: what often goes wrong while a model generates, each with its number and the threshold that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.finite import wrong
from openmav.paint import Line, fit, ink, number_text, visible
from openmav.panels._layers import too_narrow, waiting
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Health"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm", "sink_share")
ROWS = 10
DEAD, DEAD_TOKENS = 0.01, 8  # a layer is dead that adds less than this share of the residual stream, for so many tokens
SINK = 0.9  # mean share of attention on the first token, above which attention has collapsed
LOOP, LOOP_TOKENS, PERIOD = 3, 8, 64  # repeats of the same run of tokens in a row, that take so many tokens; the longest run looked for
REPEATED, NGRAM, NGRAM_TOKENS = 0.5, 4, 128  # share of n-grams that came before, their length, and the newest tokens that are looked at
HELP = f"""\
What it shows: five checks of the token under the cursor and those before it. Each row: ✓ fine, ! not fine, – not known;
its name; its number; and in grey the limit that it is judged by, and where it was found.

How to read it: a row with ! says what to look at. Not finite: the model computed NaN or infinity, often from 16-bit
overflow; the row names measure and layer. Dead layers: layers that add next to nothing; they could be left out. Sink: nearly
all attention rests on the first token, so that the text is hardly read. Loop: the text ends with the same run of tokens over
and over. Repeated: how much of the newest text came before; raise the temperature or the repetition penalty.

Formula: not finite = numbers of this token that are NaN or infinite and should not be; limit 0. Dead = layers where max(MLP,
attention norm) / residual norm stays below {DEAD:.0%} for {DEAD_TOKENS} tokens; limit 0. Sink = mean over layers and heads of the
attention on the first token; limit {SINK:.2f}. Loop = how often in a row the last run of at most {PERIOD} tokens stands at the end;
it counts where all runs have {LOOP_TOKENS} tokens or more; limit {LOOP}. Repeated = 1 - distinct / all {NGRAM}-grams of the newest
{NGRAM_TOKENS} tokens; limit {REPEATED:.2f}.

Source: the numbers of the panels for norms and sinks; Xiao et al., "Efficient Streaming Language Models with Attention
Sinks" (2023); Welleck et al., "Neural Text Generation with Unlikelihood Training" (2019), for repeated n-grams.

What is normal: no ! at all. Sinks of 0.3 to 0.8 are usual in trained models; small models left alone (greedy) soon loop.
"""
GLYPHS = {True: "✓", False: "!", None: "–"}
LABEL, NUMBER = 13, 7
LEAST = 2 + LABEL + NUMBER  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class Check:
    """One row: `good` is None where it is not known; `limit` is what the number is judged by, `where` the place or the reason."""

    name: str
    good: bool | None
    number: str
    limit: str
    where: str = ""


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


def not_finite(view: View) -> Check:
    count, where = bad_places(view)
    return Check("not finite", count == 0, str(count), "limit 0", where)


def dead_layers(view: View) -> Check:
    """Layers whose larger part stays below a share of the residual stream, in every one of the newest tokens."""
    limit, alive = f"< {DEAD:.0%} for {DEAD_TOKENS} tokens", np.zeros(view.layers, dtype=bool)
    steps = [step for step in _steps(view, DEAD_TOKENS) if all(name in step.values for name in NEEDS[:3])]
    if len(steps) < DEAD_TOKENS:
        return Check("dead layers", None, "none", limit, f"after {DEAD_TOKENS} tokens")
    known = np.zeros(view.layers, dtype=bool)
    for step in steps:
        added = np.fmax(step.values["mlp_norm"], step.values["attention_norm"])
        residual = step.values["residual_norm"]
        there = np.isfinite(added) & np.isfinite(residual)
        alive |= there & (added >= DEAD * residual)
        known |= there
    dead = np.flatnonzero(known & ~alive)
    where = f"layer {', '.join(map(str, dead[:6]))}{'…' if len(dead) > 6 else ''}" if len(dead) else ""
    return Check("dead layers", len(dead) == 0, str(len(dead)), limit, where)


def sink(view: View) -> Check:
    """The mean share of attention on the first token."""
    shares, limit = view.values("sink_share"), f"limit {SINK:.2f}"
    if shares is None or not np.isfinite(shares).any():
        return Check("sink", None, "none", limit, "no attention rows" if shares is not None else "not captured")
    per_layer = shares.mean(axis=1)
    mean = float(np.nanmean(per_layer))
    return Check("sink", mean <= SINK, number_text(mean, 2), limit, f"most in layer {int(np.nanargmax(per_layer))}")


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


def loop(view: View) -> Check:
    steps = _steps(view, 4 * PERIOD)
    repeats, period = loop_at_end([step.token_id for step in steps])
    run = "".join(visible(step.token) for step in steps[-period:]) if period else ""
    return Check("loop", repeats < LOOP, f"{repeats}×", f"limit {LOOP}×", run)


def repeated_share(ids: Sequence[int]) -> float:
    """1 - distinct / all n-grams; 0 for too few tokens."""
    grams = [tuple(ids[at : at + NGRAM]) for at in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeated(view: View) -> Check:
    ids = [step.token_id for step in _steps(view, NGRAM_TOKENS)]
    share = repeated_share(ids)
    return Check("repeated", share <= REPEATED, number_text(share, 2), f"limit {REPEATED:.2f}", f"{NGRAM}-grams of {len(ids)} tokens")


CHECKS: tuple[Callable[[View], Check], ...] = (not_finite, dead_layers, sink, loop, repeated)


# ---- drawing -------------------------------------------------------------------------------------------------------------


def _ordered(checks: list[Check], height: int) -> list[Check]:
    """As many as fit; where not all do, what is not fine comes first."""
    if height >= len(checks):
        return checks
    return sorted(checks, key=lambda check: {False: 0, None: 1, True: 2}[check.good])[: max(height, 0)]


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    checks = [check(view) for check in CHECKS]
    wrong = sum(check.good is False for check in checks)
    hidden = len(checks) - len(_ordered(checks, height))
    parts = [f"{wrong} not fine" if wrong else "all fine", f"{hidden} more" if hidden else "", f"token {view.cursor}"]
    return " · ".join(part for part in parts if part)


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None:
        return waiting(view, width)
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    checks = _ordered([check(view) for check in CHECKS], height)
    tall = height >= 2 * len(checks) and width < LABEL + NUMBER + 44
    lines: list[Line] = []
    for check in checks:
        lines.append(_row(view, check, width, not tall))
        if tall:
            lines.append([Segment(fit("  " + _detail(check), width), ink(view.palette, "secondary"))])
    return lines


def _detail(check: Check) -> str:
    """The limit, and the place where there is one; what is wrong says first where."""
    parts = (check.where, check.limit) if check.good is False else (check.limit, check.where)
    return " · ".join(part for part in parts if part)


def _row(view: View, check: Check, width: int, with_detail: bool) -> Line:
    bad, quiet = check.good is False, ink(view.palette, "secondary")
    main = ink(view.palette, "warning" if bad else "text" if check.good else "secondary", bold=bad)
    line = [Segment(f"{GLYPHS[check.good]} ", main), Segment(fit(check.name, LABEL), main), Segment(check.number.rjust(NUMBER), main)]
    room = width - 2 - LABEL - NUMBER - 2
    return [*line, Segment("  " + fit(_detail(check), room), quiet)] if with_detail and room > 4 else line
