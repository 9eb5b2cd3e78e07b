"""Accounting: what showing all this costs: time a token, part by part, memory, and the speed over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, number, number_text, percent
from openmav.panels.base import Box
from openmav.panels.widgets.layer_rows import message, too_narrow, why_no_step
from openmav.panels.widgets.sparkline import condensed_means, roomy, spark_lines
from openmav.record import Step
from openmav.view import View

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
SPEED_ROWS = 6  # of the sparkline that suffice
ROWS = 9 + SPEED_ROWS
MORE = 18
TWO_COLUMNS = 2 * (LABEL + NUMBER + 1)  # cells from which on entries stand in two, each with all of its name
AXIS = 8  # cells of the tokens/s beside the sparkline
LEAST_BAR = 4  # cells; a shorter one shows nothing
SHORT_LABEL = 9  # of a name where there is no room for all of it
LEAST = SHORT_LABEL + NUMBER + 2  # cells; where there are fewer, numbers would have to be cut


@dataclass(frozen=True)
class AccountingData:
    """Times are means of the newest RECENT tokens up to the cursor, in seconds; sizes are in bytes."""

    empty: str | None  # why there is nothing to show; None where there is
    speed: float | None = None  # tokens a second
    model: float = 0.0
    capture: float = 0.0
    sampling: float = 0.0
    draw: float | None = None
    cache: float = 0.0  # 0 where it is not known
    cache_per_token: float | None = None
    history: float = 0.0
    history_exact: bool = True  # False: taken from a sample
    history_per_token: float = 0.0
    app_memory: int | None = None
    engine_memory: int | None = None
    speeds: NDArray[np.float64] | None = None  # [tokens], tokens a second; NaN where a token took no time
    tokens: int = 0
    cursor: int = -1


def data(view: View) -> AccountingData:
    step = view.step
    if step is None:
        return AccountingData(why_no_step(view))
    recent = [one.timing for one in view.steps[max(0, view.cursor + 1 - RECENT) : view.cursor + 1]]
    model, capture, sampling = (float(np.mean([getattr(timing, name) for timing in recent])) for name in ("model", "capture", "sample"))
    total = sum(timing.total for timing in recent)
    cached = view.values("cache_size")
    cache = float(cached[0]) if cached is not None else 0.0
    history, exact = history_bytes(view.steps)
    return AccountingData(
        empty=None,
        speed=len(recent) / total if total > 0 else None,
        model=model,
        capture=capture,
        sampling=sampling,
        draw=view.draw_seconds,
        cache=cache,
        cache_per_token=cache / step.position if step.position and cache else None,
        history=history,
        history_exact=exact,
        history_per_token=history / max(len(view.steps), 1),
        app_memory=view.memory.get("app"),
        engine_memory=view.memory.get("engine"),
        speeds=np.array(speeds(view.steps), dtype=np.float64),
        tokens=len(view.steps),
        cursor=view.cursor,
    )


def speeds(steps: Sequence[Step]) -> list[float]:
    """Tokens/s of every token; NaN where it took no time."""
    totals = [step.timing.total for step in steps]
    return [1 / total if total > 0 else math.nan for total in totals]


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
    top = step.candidates
    arrays: list[NDArray] = [top.token_ids, top.logits, top.probs, top.sampled_probs, *step.values.values()]
    return sum(array.nbytes for array in arrays)


@dataclass(frozen=True)
class Entry:
    """A row: its name, its number, a share that is drawn as a bar (None: no bar), and what there is to say beside it."""

    name: str
    value: str
    share: float | None = None
    hue: str = "residual"
    aside: str = ""


def _times(data: AccountingData) -> list[Entry]:
    total = data.model + data.capture + data.sampling
    rows = []
    for seconds, label, hue in (
        (data.model, "model", "mlp"),
        (data.capture, "capture", "attention"),
        (data.sampling, "sampling", "entropy"),
    ):
        share = seconds / total if total > 0 else 0.0
        rows.append(Entry(label, _milliseconds(seconds), share, hue, percent(share)))
    if data.draw is None:
        return [*rows, Entry("draw", "none")]
    return [*rows, Entry("draw", _milliseconds(data.draw), aside="beside the model")]


def _milliseconds(seconds: float) -> str:
    return f"{number_text(seconds * 1000, 1 if seconds < 1 else 0)} ms"


def _sizes(data: AccountingData) -> list[Entry]:
    per_token = "" if data.cache_per_token is None else f"{size_text(data.cache_per_token)} a token"
    history = ("" if data.history_exact else "≈") + size_text(data.history)
    rows = [
        Entry("KV cache", size_text(data.cache) if data.cache else "none", aside=per_token),
        Entry("history", history, aside=f"{size_text(data.history_per_token)} a token"),
    ]
    known = (("app", data.app_memory), ("engine", data.engine_memory))
    return rows + [Entry(f"{name} memory", "none" if size is None else size_text(size)) for name, size in known]


def entries(data: AccountingData) -> list[Entry]:
    """All rows above the sparkline."""
    speed = f"{number(data.speed, 1, 4)} tok/s" if data.speed is not None else "none"
    return [Entry("speed", speed, aside="over time below"), *_times(data), *_sizes(data)]


def _places(width: int, height: int, count: int) -> tuple[int, int]:
    """(columns of entries, rows of the sparkline): two columns where one does not fit and there is room."""
    across = 2 if height < count + 1 and width >= TWO_COLUMNS else 1
    rows = math.ceil(count / across)
    return across, max(1, height - rows) if height > 1 else 0


def note(data: AccountingData, box: Box) -> str:
    if data.empty is not None:
        return ""
    count = len(entries(data))
    across, spark = _places(box.width, box.height, count)
    hidden = count - across * max(0, box.height - spark)
    left = AXIS if spark > 1 and box.width >= 40 else 0
    together = math.ceil(data.tokens / max(box.width - left, 1))
    parts = [f"{hidden} more" if hidden > 0 else "", f"column: mean of {together} tokens" if together > 1 else ""]
    return " · ".join(part for part in (*parts, "mean of the newest 16 tokens") if part)


def render(data: AccountingData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    if box.width < LEAST:
        return too_narrow(box)
    rows = entries(data)
    across, spark = _places(box.width, box.height, len(rows))
    high = min(math.ceil(len(rows) / across), max(0, box.height - spark))
    lines: list[Line] = []
    for at in range(high):
        picked = rows[at :: math.ceil(len(rows) / across)][:across]
        lines.append([segment for entry in picked for segment in _row(box, entry, box.width // across)])
    return [*lines, *_speed(data, box, spark)][: max(box.height, 0)]


def _row(box: Box, entry: Entry, width: int) -> Line:
    quiet = ink(box.palette, "secondary")
    missing = entry.value == "none"
    value = Segment(entry.value.rjust(NUMBER), quiet if missing else ink(box.palette, "text"))
    label = max(SHORT_LABEL, min(LABEL, width - NUMBER - 1))
    line = [Segment(fit(entry.name, label), quiet), value, Segment(" ")]
    room = max(0, width - label - NUMBER - 2)
    if room == 0:
        return line[:2]
    if entry.share is None:
        return [*line, Segment(fit(entry.aside if cells(entry.aside) <= room else "", room), quiet), Segment(" ")]
    aside = entry.aside if room >= 12 else ""
    longest = min(room - cells(aside), box.max_bar_length or room)
    shown = bar(entry.share, longest) if longest >= LEAST_BAR else ""
    return [*line, Segment(shown, ink(box.palette, entry.hue)), Segment(" " * (room - len(shown) - len(aside)) + aside + " ", quiet)]


def _speed(data: AccountingData, box: Box, rows: int) -> list[Line]:
    """The speed over time."""
    if not rows or data.speeds is None:
        return []
    left = AXIS if rows > 1 and box.width >= 40 else 0
    shown, together = condensed_means(data.speeds.tolist(), box.width - left)
    width = roomy(len(shown), box.width - left)
    lines = spark_lines(box.palette, shown, rows, "residual", data.cursor // together, box.scale, width)
    if not left:
        return lines
    finite = [one for one in shown if math.isfinite(one)]
    low = min(finite, default=0.0) if box.scale == "minmax" else 0.0
    names = [number_text(max(finite, default=0.0), 1), *[""] * (rows - 2), number_text(low, 1)]
    quiet = ink(box.palette, "secondary")
    return [[Segment(fit(name, left - 1, ">") + " ", quiet), *line] for name, line in zip(names, lines)]
