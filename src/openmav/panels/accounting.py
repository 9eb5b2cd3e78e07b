"""Accounting: what showing all this costs: time a token, part by part, memory, and the speed over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, number, number_text
from openmav.panels._layers import too_narrow, waiting
from openmav.panels._spark import condensed_means, roomy, spark_lines
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Accounting"
NEEDS = ("cache_size",)
HELP = """\
What it shows: where the time of a token goes (mean of the newest 16 tokens up to the cursor): the model itself, capture
(what mav adds to it: reading sites and computing measures), choosing the token, and drawing this screen. Then the memory
that the KV cache, mav's history, and the two processes take; and on the lowest rows the speed over time, oldest on the left.

How to read it: capture should be small beside model; if it is not, close a panel that needs a costly measure, such as the
logit lens. Drawing runs in a process of its own and does not slow the model. The KV cache grows with each token; so does the
history, by what the shown panels want.

Formula: tokens/s = 1 / (model + capture + sampling). KV cache = bytes of all keys and values (or states) that the model's
own cache holds for the tokens so far. History = bytes of all arrays in the recorded steps; ≈ where it is taken from a sample.
Draw = making all panels' lines, not the terminal's own work. Memory = resident set size, as the system says it.

Source: mav's own clocks in the session and in the app.

What is normal: capture below 5 % of model for the overview; draw below 33 ms; the first token is slower, it reads the prompt.
"none" means that the number is not known here, such as the memory of a model in a recording.
"""
RECENT = 16  # tokens that times are averaged over
LABEL, NUMBER = 14, 11
SAMPLE = 512  # steps from which on the history's size is taken from so many
SPEED_ROWS = 6  # of the sparkline at most
ROWS = 9 + SPEED_ROWS
LEAST = LABEL + NUMBER + 2  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class Entry:
    """A row: its name, its number, a share that is drawn as a bar (None: no bar), and what there is to say beside it."""

    name: str
    value: str
    share: float | None = None
    hue: str = "residual"
    aside: str = ""


def size_text(count: float) -> str:
    """Bytes in the unit that leaves one to four digits: 912 B, 46.1 KB, 1.4 GB; powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def history_bytes(steps: Sequence[Step]) -> tuple[float, bool]:
    """(bytes of all arrays, is it exact): every step's where they are few, else a sample's mean times their number."""
    every = max(1, math.ceil(len(steps) / SAMPLE))
    sizes = [_step_bytes(step) for step in steps[::every]]
    return (float(np.mean(sizes)) * len(steps) if sizes else 0.0), every == 1


def _step_bytes(step: Step) -> int:
    made = step.candidates
    arrays: list[NDArray] = [made.token_ids, made.logits, made.probs, made.sampled_probs, *step.values.values()]
    return sum(array.nbytes for array in arrays)


def _recent(view: View) -> Sequence[Step]:
    return view.steps[max(0, view.cursor + 1 - RECENT) : view.cursor + 1]


def speeds(view: View) -> list[float]:
    """Tokens/s of every token so far; NaN where it took no time."""
    totals = [step.timing.total for step in view.steps]
    return [1 / total if total > 0 else math.nan for total in totals]


def _times(view: View) -> list[Entry]:
    recent = [step.timing for step in _recent(view)]
    parts = {name: float(np.mean([getattr(timing, name) for timing in recent])) for name in ("model", "capture", "sample")}
    total = sum(parts.values())
    rows = []
    for seconds, (label, hue) in zip(parts.values(), (("model", "mlp"), ("capture", "attention"), ("sampling", "entropy"))):
        share = seconds / total if total > 0 else 0.0
        rows.append(Entry(label, _milliseconds(seconds), share, hue, f"{share:.1%}"))
    draw = view.draw_seconds
    rows.append(Entry("draw", "none" if draw is None else _milliseconds(draw), aside="beside the model" if draw is not None else ""))
    return rows


def _milliseconds(seconds: float) -> str:
    return f"{number_text(seconds * 1000, 1 if seconds < 1 else 0)} ms"


def _sizes(view: View) -> list[Entry]:
    step = view.step
    held = view.values("cache_size")
    size = float(held[0]) if held is not None else 0.0
    each = f"{size_text(size / step.position)} a token" if step is not None and step.position and size else ""
    total, exact = history_bytes(view.steps)
    rows = [Entry("KV cache", size_text(size) if size else "none", aside=each)]
    rows.append(Entry("history", ("" if exact else "≈") + size_text(total), aside=f"{size_text(total / max(len(view.steps), 1))} a token"))
    known = ((name, view.memory.get(name)) for name in ("app", "engine"))
    return rows + [Entry(f"{name} memory", "none" if held is None else size_text(held)) for name, held in known]


def entries(view: View) -> list[Entry]:
    """All rows above the sparkline."""
    total = sum(step.timing.total for step in _recent(view))
    speed = f"{number(len(_recent(view)) / total, 1, 4)} tok/s" if total > 0 else "none"
    return [Entry("speed", speed, aside="over time below"), *_times(view), *_sizes(view)]


def _places(width: int, height: int, count: int) -> tuple[int, int]:
    """(columns of entries, rows of the sparkline): two columns where one does not fit and there is room."""
    across = 2 if height < count + 1 and width >= 64 else 1
    rows = math.ceil(count / across)
    return across, max(1, min(SPEED_ROWS, height - rows)) if height > 1 else 0


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    across, spark = _places(width, height, len(entries(view)))
    hidden = len(entries(view)) - across * max(0, height - spark)
    together = math.ceil(len(view.steps) / max(width, 1))
    parts = [f"{hidden} more" if hidden > 0 else "", f"column: mean of {together} tokens" if together > 1 else ""]
    return " · ".join(part for part in (*parts, "mean of the newest 16 tokens") if part)


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None:
        return waiting(view, width)
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    rows = entries(view)
    across, spark = _places(width, height, len(rows))
    high = min(math.ceil(len(rows) / across), max(0, height - spark))
    each = width // across
    lines: list[Line] = []
    for at in range(high):
        picked = rows[at :: math.ceil(len(rows) / across)][:across]
        lines.append([segment for entry in picked for segment in _row(view, entry, each)])
    return [*lines, *_speed(view, spark, width)][: max(height, 0)]


def _row(view: View, entry: Entry, width: int) -> Line:
    quiet = ink(view.palette, "secondary")
    missing = entry.value == "none"
    value = Segment(entry.value.rjust(NUMBER), quiet if missing else ink(view.palette, "text"))
    line = [Segment(fit(entry.name, LABEL), quiet), value, Segment(" ")]
    room = max(0, width - LABEL - NUMBER - 2)
    if entry.share is None:
        return [*line, Segment(fit(entry.aside if cells(entry.aside) <= room else "", room), quiet), Segment(" ")]
    aside = entry.aside.rjust(7) if room >= 12 else ""
    longest = min(room - cells(aside), view.options.max_bar_length or room)
    shown = bar(entry.share, max(0, longest))
    return [*line, Segment(shown, ink(view.palette, entry.hue)), Segment(" " * (room - len(shown) - len(aside)) + aside + " ", quiet)]


def _speed(view: View, rows: int, width: int) -> list[Line]:
    """The speed over time."""
    if not rows:
        return []
    shown, together = condensed_means(speeds(view), width)
    return spark_lines(view.palette, shown, rows, "probability", view.cursor // together, view.options.scale, roomy(len(shown), width))
