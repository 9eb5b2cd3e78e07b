"""Timeline: the surprisal of every token so far, a column each; the place to go back to any of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, columns, heat_runs, ink, number_text, one_line, shares, surprise, visible, widened
from openmav.panels.base import Box
from openmav.panels.widgets.layer_rows import message, why_no_step
from openmav.panels.widgets.sequence import index_axis, tokens_in_sight
from openmav.panels.widgets.sparkline import roomy
from openmav.panels.widgets.watched import held
from openmav.record import mean_surprisal
from openmav.view import Selection, View

TITLE = "Timeline"
NEEDS = ()
STRIP = True  # it lies across the whole screen, few rows high
HELP = """\
What it shows: one column for each generated token, the oldest on the left; its height and colour say how surprised
the model was by the token that was chosen. The frame points at the column under the cursor (▼ ▲).

How to read it: low and quiet is what the model expected; a tall column in a strong colour is a token that it considered
unlikely: often the first word of a new thought, or a name. The colours are those of the text, in fixed steps of nats.
Walk with the left and right keys, home and end, or click: all panels then show that token. Columns are scaled to the
tallest in sight, and where there is room an axis says how many nats that is; --scale changes them, never the numbers.

A row below the columns marks events: ┬ a branch starts here, ◆ the sampling changed, ✎ a forced token, ◉ a breakpoint was
hit, ▾ interventions apply from here on, ▴ interventions removed.

Formula: surprisal = -ln p of the chosen token under the model's raw distribution, in nats (0.69 nats = one coin
toss). Mean surprisal is over all generated tokens; perplexity = exp(mean surprisal).

Source: the model's own logits, before any change by sampling.

What is normal: greedy text of a fluent model averages below 1 nat, sampled text 2 to 3. A long stretch of zeros is
often a repetition.
"""
AXIS, AXIS_ROWS = 5, 8  # cells of the axis at the left; rows from which on there are axes


@dataclass(frozen=True)
class TimelineData:
    empty: str | None  # why there is nothing to show; None where there is
    surprisals: NDArray[np.float64]  # [tokens], nats, from token `first` on
    marks: tuple[str, ...]  # [tokens]: what was done there, in one character; "" for nothing
    first: int
    tokens: int  # all generated tokens, of which those above can be in sight
    cursor: int
    index: int  # of the token under the cursor, in the run
    token: str
    surprisal: float
    event: str  # what was done at that token, in words; "" for nothing
    mean: float  # surprisal of all tokens


def data(view: View) -> TimelineData:
    step, sight = view.step, tokens_in_sight(view)
    return TimelineData(
        empty=why_no_step(view),
        surprisals=np.array([view.steps[at].surprisal for at in sight], dtype=np.float64),
        marks=tuple(mark_of(view, at) for at in sight),
        first=sight.start,
        tokens=len(view.steps),
        cursor=view.cursor,
        index=step.index if step else -1,
        token=visible(step.token) if step else "",
        surprisal=step.surprisal if step else math.nan,
        event=one_line(event_of(view, view.cursor)) if step else "",
        mean=mean_surprisal(view.steps),
    )


def mark_of(view: View, index: int) -> str:
    """What was done at a token, in one cell; "" for nothing."""
    step, before = view.steps[index], view.steps[index - 1] if index else None
    modified, was = bool(step.interventions), bool(before is not None and before.interventions)
    if modified != was or (modified and before is not None and step.interventions != before.interventions):
        return "▾" if modified else "▴"
    if before is not None and step.sampling != before.sampling:
        return "◆"
    if any(branch.parent == view.branch and branch.at == index for branch in view.branches.values()):
        return "┬"
    if view.parent is not None and view.at == index:
        return "┬"
    return "◉" if held(view, index) else "✎" if step.forced else ""


def event_of(view: View, index: int) -> str:
    """What was done at a token, in words."""
    step, sign = view.steps[index], mark_of(view, index)
    words = {
        "▾": f"interventions: {', '.join(step.interventions)}",
        "▴": "interventions removed",
        "◆": f"sampling from here: {step.sampling.describe()}",
        "┬": "a branch starts here",
        "◉": f"breakpoint hit: {', '.join(held(view, index))}",
        "✎": "forced",
    }
    return words.get(sign, "")


def window(data: TimelineData, width: int) -> tuple[int, int]:
    """First and last+1 of the tokens in sight: the newest ones, or those around the cursor."""
    count = data.tokens
    if count <= width:
        return 0, count
    first = count - width
    if data.cursor < first + width // 8:
        first = max(0, data.cursor - width // 2)
    return min(first, count - width), min(first, count - width) + width


def _axis(box: Box) -> tuple[int, bool]:
    """(cells of the axis of nats at the left, is there an axis of tokens below): where there is room for them."""
    roomy_box = box.height >= AXIS_ROWS and box.width >= 60
    return AXIS if roomy_box else 0, roomy_box


def heading(data: TimelineData, box: Box) -> str:
    return "Timeline · surprisal, nats"


def _perplexity(mean: float) -> str:
    value = math.exp(mean) if mean < 700 else math.inf if not math.isnan(mean) else math.nan
    return f"{value:.1e}" if 1e6 < value < math.inf else number_text(value, 1)


def note(data: TimelineData, box: Box) -> str:
    if data.empty is not None:
        return ""
    first, last = window(data, box.width - _axis(box)[0])
    parts = [f"token {data.index} {data.token} {number_text(data.surprisal, 2)} nats", *([data.event] if data.event else [])]
    parts.append(f"mean {number_text(data.mean, 2)} · perplexity {_perplexity(data.mean)}")
    if last - first < data.tokens:
        parts.insert(1, f"{'◂ ' * (first > 0)}{first}–{last - 1} of {data.tokens}{' ▸' * (last < data.tokens)}")
    return " · ".join(parts)


def legend(data: TimelineData, box: Box) -> Line | None:
    return surprise.legend(box.palette) if box.palette.color and data.empty is None else None


def pointer(data: TimelineData, box: Box) -> int | None:
    left, _ = _axis(box)
    first, last = window(data, box.width - left)
    return (
        left + (data.cursor - first) * roomy(data.tokens, box.width - left) if data.empty is None and first <= data.cursor < last else None
    )


def render(data: TimelineData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    left, below = _axis(box)
    (first, last), wide = window(data, box.width - left), roomy(data.tokens, box.width - left)
    surprisals, marks = data.surprisals[first - data.first : last - data.first], data.marks[first - data.first : last - data.first]
    finite = np.isfinite(surprisals)
    heights = shares(surprisals, box.scale)
    marked = box.height > 1 and any(marks)
    rows = columns([float(share) if good else 1.0 for share, good in zip(heights, finite)], max(1, box.height - marked - below))
    here = data.cursor - first
    runs = heat_runs([2 * surprise.step_of(float(nats)) + (at == here) for at, nats in enumerate(surprisals)])
    styles = {code: surprise.column(box.palette, code // 2, "select" if code % 2 else "") for code, _ in runs}
    names = _scale_names(surprisals, box, len(rows)) if left else [""] * len(rows)
    lines: list[Line] = []
    for name, row in zip(names, rows):
        at, line = 0, [Segment(name.rjust(left), ink(box.palette, "secondary"))] if left else []
        for code, count in runs:
            line.append(Segment(widened(row[at : at + count] if code >= 0 else "!" * count, wide), styles[code]))
            at += count
        lines.append(line)
    if marked:
        lines.append([Segment(" " * left + "".join(f"{sign:{wide}}" for sign in marks), ink(box.palette, "key"))])
    return [*lines, [Segment(" " * left + index_axis(range(first, last), wide), ink(box.palette, "secondary"))]] if below else lines


def _scale_names(surprisals: NDArray[np.float64], box: Box, rows: int) -> list[str]:
    """What stands beside each row: the nats at the top, in the middle of a linear scale, and at the bottom."""
    finite = surprisals[np.isfinite(surprisals)]
    top, names = float(finite.max(initial=0.0)), [""] * rows
    names[0] = f"{top:.1f} "
    if box.scale == "linear":
        names[rows // 2] = f"{top * (1 - (rows // 2) / rows):.1f} "
    names[-1] = f"{float(finite.min(initial=top)) if box.scale == 'minmax' else 0.0:.1f} "
    return names


def pick(data: TimelineData, box: Box, x: int, y: int) -> Selection | None:
    """The token whose column was clicked."""
    left, _ = _axis(box)
    first, last = window(data, box.width - left)
    column = (x - left) // roomy(data.tokens, box.width - left)
    return Selection(step=first + column) if 0 <= column < last - first else None
