"""Sampler waterfall: how each stage of sampling narrows the next-token distribution, down to the token that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, number_text, percent, visible
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import not_captured, nothing_to_show, why_no_step
from openmav.panels.widgets.stages import ON, SURVIVORS, count_text, shortened, stage_label
from openmav.record import SAMPLING_STAGES, USUAL_STAGES
from openmav.settings.sampling import SMALLEST
from openmav.view import View

TITLE = "Sampler waterfall"
NEEDS = ("sampling_stages",)
ROWS = len(USUAL_STAGES) + 2
HELP = """\
What it shows: one row for each stage that the next-token distribution goes through, from the model's own (raw) down: the
constraint (a pattern, banned or required words), the repetition penalty, temperature, top-k, top-p, min-p, in this order,
and among them the stages that the model's own generation config adds (such as no n-gram, bad words, min tokens, forced end,
suppressed, typical-p, epsilon, eta). Columns: what the stage is set to; how many tokens still have a chance; a bar and the
share of the probability that the stage kept, the rest (░) it cut away; the probability of the chosen token after the stage.
A stage that is off is grey. The last row is the chosen token.

How to read it: look for the row where most tokens go: that stage does the work. If the last stages leave a single token,
sampling is no longer random. Where the chosen token's probability grows from row to row, the stages made it more likely than
the model did. What the constraint cut is what the model would have preferred. "greedy" means that nothing is drawn:
the token with the largest score is taken.

Formula: survivors = tokens with p > 0 after the stage; kept = the sum of p, by the distribution that the stage was given,
over the tokens that it kept; then p is scaled so that it sums to 1 again. Penalty and temperature change p and cut nothing.

Source: transformers' own logits processors, in its order; Holtzman et al., "The Curious Case of Neural Text Degeneration"
(2019), for top-p. The token is drawn with torch.multinomial, which races all tokens against random numbers: there is no one
place between 0 and 1 where the draw fell, so none is shown.

What is normal: tens of thousands of tokens before the filters and a few to a few dozen after them, with 80 to 99 % kept.
"""
NAME, COUNT = 17, 9
NARROW_NAME, NARROW_COUNT, LEAST_BAR = 11, 7, 4
PERCENT = 7
LEAST = NARROW_NAME + PERCENT + 1  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class StageRow:
    """A stage of sampling at the shown token."""

    name: str  # and what it is set to
    on: bool
    survivors: float  # tokens that still have a chance
    kept: float  # share of the probability that it was given, 0..1
    entropy: float  # nats, after it
    chosen: float  # probability of the chosen token after it


@dataclass(frozen=True)
class WaterfallData:
    empty: str | None  # why there is nothing to show; None where there is
    stages: tuple[StageRow, ...] = ()  # in the order in which they run; those that any model has, also where they are off
    token: str = ""  # that was chosen
    forced: bool = False
    greedy: bool = False
    pending: bool = False  # the sampling is that which holds from the next token on; nothing was drawn with it


def data(view: View) -> WaterfallData:
    rows, settings = view.sampling_values("sampling_stages"), view.sampling_values("sampling_stages.settings")
    if view.step is None:
        return WaterfallData(why_no_step(view))
    if rows is None or settings is None:
        return WaterfallData(not_captured(view))
    stages = []
    for at, name in enumerate(SAMPLING_STAGES):
        on = bool(rows[at, ON])
        if not on and name not in USUAL_STAGES:
            continue
        text = stage_label(name, float(settings[at])) if on else name
        stages.append(StageRow(text, on, *(float(value) for value in rows[at, SURVIVORS:])))
    greedy = bool(settings[SAMPLING_STAGES.index("temperature")] < SMALLEST)
    return WaterfallData(None, tuple(stages), visible(view.step.token), view.step.forced, greedy, view.pending is not None)


def _shown(data: WaterfallData, height: int) -> tuple[list[StageRow], bool]:
    """The stages that fit, and whether there is a line for the columns' names: what is off goes first, never the raw one."""
    every = list(data.stages)
    room = height - 1  # the token's line
    if room > len(every):
        return every, True
    if room < len(every):
        every = [stage for stage in every if stage.on]
    return every[: max(0, room)], room > len(every)


def heading(data: WaterfallData, box: Box) -> str:
    return fitting([f"{TITLE}: preview", TITLE], box.width) if data.pending else TITLE


def note(data: WaterfallData, box: Box) -> str:
    every = data.stages
    if not every:
        return ""
    names = [stage.name for stage in _shown(data, box.height)[0]]
    off, cut = (sum(stage.on == on and stage.name not in names for stage in every) for on in (False, True))
    parts = [f"{cut} more" if cut else "", f"{off} off" if off else ""]
    parts.append(f"entropy {number_text(every[0].entropy, 2)} to {number_text(every[-1].entropy, 2)} nats")
    return " · ".join(part for part in parts if part)


def render(data: WaterfallData, box: Box) -> list[Line]:
    instead = nothing_to_show(box, data.empty, LEAST)
    if instead is not None:
        return instead
    shown, headed = _shown(data, box.height)
    lines = [_heading(box)] if headed else []
    lines += [_row(box, stage) for stage in shown]
    return [*lines, _taken(data, box)][: max(box.height, 0)]


def _widths(width: int) -> tuple[int, int, int, int]:
    """Cells of (name, survivors, bar, chosen); 0 for a bar or column that does not fit."""
    name, count = (NAME, COUNT) if width >= 44 else (NARROW_NAME, NARROW_COUNT if width > LEAST + NARROW_COUNT else 0)
    chosen = 8 if width >= 52 else 0
    bars = width - name - count - PERCENT - chosen - 2
    return name, count, bars if bars >= LEAST_BAR else 0, chosen


def _heading(box: Box) -> Line:
    name, count, bars, chosen = _widths(box.width)
    text = "stage".ljust(name) + ("tokens".rjust(count) if count else "") + " " * (bars + 1 + bool(bars)) + "kept".rjust(PERCENT)
    return [Segment(text + ("chosen".rjust(chosen) if chosen else ""), ink(box.palette, "secondary"))]


def _row(box: Box, stage: StageRow) -> Line:
    name, count, bars, chosen = _widths(box.width)
    role = "text" if stage.on else "secondary"
    quiet, main = ink(box.palette, "secondary"), ink(box.palette, role)
    line = [Segment(shortened(stage.name, name), main), Segment(count_text(stage.survivors).rjust(count) if count else "", main)]
    if not stage.on:
        return [*line, Segment(" off" if bars else "off".rjust(PERCENT + 1), quiet)]
    longest = box.longest(bars)
    kept = stage.kept if math.isfinite(stage.kept) else 0.0
    shown = bar(kept, longest)
    cut = ("░" * max(0, longest - len(shown)) if kept < 1 else "").ljust(bars - len(shown)) + " " * bool(bars)
    line += [Segment(" " + shown, ink(box.palette, "probability")), Segment(cut, ink(box.palette, "frame"))]
    line.append(Segment(percent(stage.kept), ink(box.palette, role if math.isfinite(stage.kept) else "warning")))
    return [*line, Segment(percent(stage.chosen).rjust(chosen), ink(box.palette, "accent"))] if chosen else line


def _taken(data: WaterfallData, box: Box) -> Line:
    """The token that was chosen, and how."""
    last, width = data.stages[-1], box.width
    if data.pending:
        ways = ["from the next token on", "next token on", "next"]
    elif data.forced:
        ways = ["forced by you, not drawn", "forced"]
    elif data.greedy:
        ways = ["greedy: the most likely is taken", "greedy"]
    else:
        chance = percent(last.chosen).strip()
        of = f"{count_text(last.survivors)} token{'s' * (last.survivors != 1)}"
        ways = [f"drawn with p {chance} of {of}", f"drawn, p {chance}", f"drawn {chance}", chance]
    mark = "● "
    how = fitting(ways, width - len(mark) - 2 - min(max(4, cells(data.token)), 8))
    token = fit(data.token, min(24, max(4, width - len(mark) - len(how) - 2))).rstrip()
    room = max(0, width - len(mark) - cells(token) - 2)
    return [Segment(mark + token + "  ", ink(box.palette, "accent", bold=True)), Segment(fit(how, room), ink(box.palette, "secondary"))]
