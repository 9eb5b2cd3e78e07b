"""Sampler waterfall: how each stage of sampling narrows the next-token distribution, down to the token that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number_text, percent, visible
from openmav.panels._grid import fitting
from openmav.panels._layers import not_captured, too_narrow, waiting
from openmav.panels._view import View
from openmav.record import SAMPLING_STAGES, Step

TITLE = "Sampler waterfall"
NEEDS = ("sampling_stages",)
ROWS = len(SAMPLING_STAGES) + 2
HELP = """\
What it shows: one row for each stage that the next-token distribution goes through, from the model's own (raw) down: the
constraint (a pattern, banned or required words), the repetition penalty, temperature, top-k, top-p, min-p, in this order.
Columns: what the stage is set to; how many tokens still have a chance; a bar and the share of the probability that the
stage kept, the rest (░) it cut away; the probability of the chosen token after the stage. A stage that is off is grey. The
last row is the token that was taken.

How to read it: look for the row where most tokens go: that stage does the work. If the last stages leave a single token,
sampling is no longer random. Where the chosen token's probability grows from row to row, the stages made it likelier than
the model held it. What the constraint cut is what the model would rather have said. "greedy" means that nothing is drawn:
the token with the largest score is taken.

Formula: survivors = tokens with p > 0 after the stage; kept = the sum of p, by the distribution that the stage was given,
over the tokens that it kept; then p is scaled so that it sums to 1 again. Penalty and temperature change p and cut nothing.

Source: transformers' own logits processors, in its order; Holtzman et al., "The Curious Case of Neural Text Degeneration"
(2019), for top-p. The token is drawn with torch.multinomial, which races all tokens against random numbers: there is no one
place between 0 and 1 where the draw fell, so none is shown.

What is normal: tens of thousands of tokens before the filters and a few to a few dozen after them, with 80 to 99 % kept.
"""
ON, SURVIVORS, KEPT, ENTROPY, CHOSEN = range(5)  # columns of "sampling_stages"
NAME, COUNT = 17, 9
NARROW_NAME, NARROW_COUNT, LEAST_BAR = 11, 7, 4
PERCENT = 7
ABBREVIATED = {"temperature": "temp.", "penalty": "pen."}  # where there is no room for the whole name
UNITS = {"penalty": 2, "temperature": 2, "top-p": 2, "min-p": 2, "top-k": 0}  # decimals of what a stage is set to
LEAST = NARROW_NAME + PERCENT + 1  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class Stage:
    """A row: its name and setting, is it on, and the columns of the measure."""

    name: str
    on: bool
    survivors: float
    kept: float
    entropy: float
    chosen: float


def stages(view: View) -> list[Stage]:
    """All stages of the shown step; none where they were not captured."""
    rows, settings = view.values("sampling_stages"), view.values("sampling_stages.settings")
    if rows is None or settings is None:
        return []
    found = []
    for at, name in enumerate(SAMPLING_STAGES):
        on = bool(rows[at, ON])
        text = f"{name} {number_text(float(settings[at]), UNITS[name])}" if on and name in UNITS else name
        found.append(Stage(text, on, *(float(value) for value in rows[at, SURVIVORS:])))
    return found


def _shown(view: View, height: int) -> tuple[list[Stage], bool]:
    """The stages that fit, and whether there is a line for the columns' names: what is off goes first, never the raw one."""
    every = stages(view)
    room = height - 1  # the token's line
    if room > len(every):
        return every, True
    if room < len(every):
        every = [stage for stage in every if stage.on]
    return every[: max(0, room)], room > len(every)


def note(view: View, width: int, height: int) -> str:
    every = stages(view)
    if not every or view.step is None:
        return ""
    shown, _ = _shown(view, height)
    names = [stage.name for stage in shown]
    off, cut = (sum(stage.on == on and stage.name not in names for stage in every) for on in (False, True))
    parts = [f"{cut} more" if cut else "", f"{off} off" if off else ""]
    parts.append(f"entropy {number_text(every[0].entropy, 2)} to {number_text(every[-1].entropy, 2)} nats")
    return " · ".join(part for part in parts if part)


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None:
        return waiting(view, width)
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    if not stages(view):
        return not_captured(view, width)
    shown, headed = _shown(view, height)
    lines = [_heading(view, width)] if headed else []
    lines += [_row(view, stage, width) for stage in shown]
    return [*lines, _taken(view, view.step, stages(view), width)][: max(height, 0)]


def _rooms(width: int) -> tuple[int, int, int, int]:
    """Cells of (name, survivors, bar, chosen); 0 for a bar or column that has no room."""
    name, count = (NAME, COUNT) if width >= 44 else (NARROW_NAME, NARROW_COUNT if width > LEAST + NARROW_COUNT else 0)
    chosen = 8 if width >= 52 else 0
    bars = width - name - count - PERCENT - chosen - 2
    return name, count, bars if bars >= LEAST_BAR else 0, chosen


def _heading(view: View, width: int) -> Line:
    name, count, bars, chosen = _rooms(width)
    text = "stage".ljust(name) + ("tokens".rjust(count) if count else "") + " " * (bars + 1 + bool(bars)) + "kept".rjust(PERCENT)
    return [Segment(text + ("chosen".rjust(chosen) if chosen else ""), ink(view.palette, "secondary"))]


def _row(view: View, stage: Stage, width: int) -> Line:
    name, count, bars, chosen = _rooms(width)
    role = "text" if stage.on else "secondary"
    quiet, main = ink(view.palette, "secondary"), ink(view.palette, role)
    label = stage.name
    for whole, short in ABBREVIATED.items() if name < NAME else ():
        label = label.replace(whole, short)
    line = [Segment(fit(label, name), main), Segment(_count(stage.survivors).rjust(count) if count else "", main)]
    if not stage.on:
        return [*line, Segment(" off" if bars else "off".rjust(PERCENT + 1), quiet)]
    longest = min(bars, view.options.max_bar_length or bars)
    kept = stage.kept if math.isfinite(stage.kept) else 0.0
    shown = bar(kept, longest)
    cut = ("░" * max(0, longest - len(shown)) if kept < 1 else "").ljust(bars - len(shown)) + " " * bool(bars)
    line += [Segment(" " + shown, ink(view.palette, "probability")), Segment(cut, ink(view.palette, "frame"))]
    line.append(Segment(percent(stage.kept), ink(view.palette, role if math.isfinite(stage.kept) else "warning")))
    return [*line, Segment(percent(stage.chosen).rjust(chosen), ink(view.palette, "accent"))] if chosen else line


def _count(survivors: float) -> str:
    return f"{int(survivors):,}" if np.isfinite(survivors) else number_text(survivors, 0)


def _taken(view: View, step: Step, every: list[Stage], width: int) -> Line:
    """What was taken in the end, and how."""
    last = every[-1]
    settings = view.values("sampling_stages.settings")
    greedy = settings is not None and settings[SAMPLING_STAGES.index("temperature")] == 0
    if step.forced:
        ways = ["forced by you, not drawn", "forced"]
    elif greedy:
        ways = ["greedy: the most likely is taken", "greedy"]
    else:
        chance = percent(last.chosen).strip()
        of = f"{_count(last.survivors)} token{'s' * (last.survivors != 1)}"
        ways = [f"drawn with p {chance} of {of}", f"drawn, p {chance}", chance]
    mark = "● "
    how = fitting(ways, width - len(mark) - 6)
    token = fit(visible(step.token), min(24, max(4, width - len(mark) - len(how) - 2))).rstrip()
    room = max(0, width - len(mark) - len(token) - 2)
    return [Segment(mark + token + "  ", ink(view.palette, "accent", bold=True)), Segment(fit(how, room), ink(view.palette, "secondary"))]
