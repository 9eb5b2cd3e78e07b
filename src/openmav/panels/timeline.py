"""Timeline: the surprisal of every token so far, a column each; the place to go back to any of them."""

from __future__ import annotations

import math

import numpy as np
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, columns, heat_runs, ink, level, number_text, one_line, shares, visible, widened
from openmav.panels._layers import waiting
from openmav.panels._spark import roomy
from openmav.panels._view import View
from openmav.panels._watched import held

TITLE = "Timeline"
NEEDS = ()
STRIP = True  # it lies across the whole screen, few rows high
HELP = """\
What it shows: one column for each generated token, the oldest on the left; its height and colour say how surprised
the model was by the token that was chosen. The column under the cursor is amber.

How to read it: low and dark is what the model expected; a tall bright column is a token that it held unlikely: often
the first word of a new thought, or a name. Walk with the left and right keys, home and end, or click: all panels then
show that token. Columns are scaled to the tallest in sight; --scale changes them, never the numbers.

Where something was done, a row below the columns says so: ┬ a branch left here, ◆ the sampling was changed, ✎ you put the token
there, ◉ a breakpoint holds, ▾ the model is touched from here on and ▴ no longer.

Formula: surprisal = -ln p of the chosen token under the model's raw distribution, in nats (0.69 nats = one coin
toss). Mean surprisal is over all generated tokens; perplexity = exp(mean surprisal).

Source: the model's own logits, before any change by sampling.

What is normal: greedy text of a fluent model averages below 1 nat, sampled text 2 to 3. A long stretch of zeros is
often a repetition.
"""


def window(view: View, width: int) -> tuple[int, int]:
    """First and last+1 of the tokens in sight: the newest ones, or those around the cursor."""
    count = len(view.steps)
    if count <= width:
        return 0, count
    first = count - width
    if view.cursor < first + width // 8:
        first = max(0, view.cursor - width // 2)
    return min(first, count - width), min(first, count - width) + width


def mark(view: View, index: int) -> str:
    """What was done at a token, in one cell; "" for nothing."""
    step, before = view.steps[index], view.steps[index - 1] if index else None
    touched, was = bool(step.interventions), bool(before is not None and before.interventions)
    if touched != was or (touched and before is not None and step.interventions != before.interventions):
        return "▾" if touched else "▴"
    if before is not None and step.sampling != before.sampling:
        return "◆"
    if any(branch.parent == view.branch and branch.at == index for branch in view.branches.values()):
        return "┬"
    if view.parent is not None and view.at == index:
        return "┬"
    return "◉" if held(view, index) else "✎" if step.forced else ""


def done(view: View, index: int) -> str:
    """What was done at a token, in words."""
    step, sign = view.steps[index], mark(view, index)
    words = {
        "▾": f"touched: {', '.join(step.interventions)}",
        "▴": "no longer touched",
        "◆": f"sampling from here: {step.sampling.describe()}",
        "┬": "a branch leaves here",
        "◉": f"held: {', '.join(held(view, index))}",
        "✎": "put there by you",
    }
    return words.get(sign, "")


def heading(view: View, width: int) -> str:
    return "Timeline · surprisal, nats"


def _perplexity(mean: float) -> str:
    value = math.exp(mean) if mean < 700 else math.inf if not math.isnan(mean) else math.nan
    return f"{value:.1e}" if 1e6 < value < math.inf else number_text(value, 1)


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    step, mean = view.step, float(np.mean([step.surprisal for step in view.steps]))
    first, last = window(view, width)
    told = done(view, view.cursor)
    parts = [f"token {step.index} {visible(step.token)} {number_text(step.surprisal, 2)} nats", *([one_line(told)] if told else [])]
    parts.append(f"mean {number_text(mean, 2)} · perplexity {_perplexity(mean)}")
    if last - first < len(view.steps):
        parts.insert(1, f"{'◂ ' * (first > 0)}{first}–{last - 1} of {len(view.steps)}{' ▸' * (last < len(view.steps))}")
    return " · ".join(parts)


def _codes(view: View, first: int, heights: np.ndarray, finite: np.ndarray) -> list[int]:
    """What each column looks like: a level of the ramp, -1 the cursor, -2 not finite, -3 both."""
    levels = len(view.palette.heat)
    codes = [level(float(share), levels) if good else -2 for share, good in zip(heights, finite)]
    if 0 <= view.cursor - first < len(codes):
        codes[view.cursor - first] = -1 if codes[view.cursor - first] >= 0 else -3
    return codes


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None:
        return waiting(view, width)
    (first, last), wide = window(view, width), roomy(len(view.steps), width)
    surprisals = np.array([step.surprisal for step in view.steps[first:last]], dtype=np.float64)
    finite = np.isfinite(surprisals)
    heights = shares(surprisals, view.options.scale)
    marks = [mark(view, index) for index in range(first, last)]
    marked = height > 1 and any(marks)
    rows = columns([float(share) if good else 1.0 for share, good in zip(heights, finite)], max(1, height - marked))
    palette, runs = view.palette, heat_runs(_codes(view, first, heights, finite))
    styles = {code: _style(view, code) for code, _ in runs}
    lines: list[Line] = []
    for row in rows:
        at, line = 0, []
        for code, count in runs:
            line.append(Segment(widened(row[at : at + count] if code > -2 else "!" * count, wide), styles[code]))
            at += count
        lines.append(line)
    if marked:
        lines.append([Segment("".join(f"{sign:{wide}}" for sign in marks), ink(palette, "key"))])
    return lines


def _style(view: View, code: int) -> Style:
    """Of a column; low ones in a quiet grey: the darkest steps of the ramp are hard to see on the ground."""
    palette = view.palette
    if code < 0:
        selected = "" if code == -2 else "select"
        return ink(palette, "accent" if code == -1 else "warning", selected, bold=code <= -2)
    return ink(palette, "text" if not palette.color else "residual" if code < 4 else palette.heat[code])


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The token whose column was clicked."""
    first, last = window(view, width)
    column = x // roomy(len(view.steps), width)
    return view.at_step(first + column) if 0 <= column < last - first else view
