"""Watches: each breakpoint and watch with its value at the shown token, and where along the text it was hit or how it changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.segment import Segment
from rich.style import Style

from openmav.conditions import Value
from openmav.paint import Line, cells, columns, fit, ink, one_line, shares, visible
from openmav.paint.wrap import wrap
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import Columns, fitting, windowed
from openmav.panels.widgets.layer_rows import too_narrow
from openmav.panels.widgets.sequence import tokens_in_sight
from openmav.panels.widgets.watched import Watched, watched
from openmav.view import Selection, View

TITLE = "Watches"
NEEDS = ()
ROWS = 8
HELP = """\
What it shows: one row for each breakpoint (◉ where it is hit, ○ where it is not) and each watch (● and ·): its text, its
value at the token under the cursor, and a strip with one column a token, the oldest on the left: a tall column where it
was true, or for a number how large it was; for a text, a thin line where it became another one.

How to read it: the value next to a breakpoint is the one it compared: 5.12 for entropy > 4. – is unknown: the layer or the
token has no such value, and no comparison with it is true. A breakpoint pauses the run where it is hit, before the
model reads that token; space continues. The key k sets, changes and clears breakpoints and watches.

Formula: docs/conditions.md names all that can be asked and its units. Numbers are those of the other panels.

Source: the breakpoints and watch expressions of debuggers; the condition is tested in the model's process, after each token.

What is normal: a breakpoint that is never hit has a limit that is out of reach; let its value run as a watch for a while to
see how it moves.
"""
LEAST, LEAST_STRIP = 14, 8
NOTHING = "Nothing is watched yet. The key k sets breakpoints and watches, for example entropy > 4 or norm(mlp, 3)."


def needs(view: View) -> tuple[str, ...]:
    """What the user's conditions need."""
    return tuple(sorted({name for one in watched(view) if one.condition is not None for name in one.condition.needs}))


@dataclass(frozen=True)
class WatchRow:
    """A breakpoint or a watch."""

    text: str
    stops: bool  # a breakpoint
    kind: str  # "truth", "number" or "text"; "" where the text is no condition for this model
    why: str  # why it is none
    now: Value  # at the shown token; None is unknown
    shown: str  # the same for a reader: what a condition compared
    values: tuple[Value, ...]  # [tokens], from token `first` on
    before: Value  # at the token before `first`


@dataclass(frozen=True)
class WatchesData:
    rows: tuple[WatchRow, ...]
    first: int
    tokens: int  # all generated tokens, of which the rows' values can be in sight
    cursor: int
    token: str | None  # under the cursor


def data(view: View) -> WatchesData:
    sight = tokens_in_sight(view)
    token = visible(view.step.token) if view.step is not None else None
    return WatchesData(tuple(_watch(view, one, sight) for one in watched(view)), sight.start, len(view.steps), view.cursor, token)


def _watch(view: View, one: Watched, sight: range) -> WatchRow:
    there = view.step is not None
    return WatchRow(
        text=one_line(one.text),
        stops=one.stops,
        kind=one.condition.kind if one.condition is not None else "",
        why=one.why,
        now=one.value(view, view.cursor) if there else None,
        shown=one_line(one.shown(view, view.cursor)) if there else "–",
        values=tuple(one.value(view, at) for at in sight),
        before=one.value(view, sight.start - 1) if sight.start else None,
    )


def heading(data: WatchesData, box: Box) -> str:
    stops = sum(row.stops for row in data.rows)
    text = f"{stops} breakpoint{'s' * (stops != 1)}, {len(data.rows) - stops} watched"
    return fitting([f"Watches · {text}", "Watches"], box.width) if data.rows else "Watches"


def note(data: WatchesData, box: Box) -> str:
    parts = ["k: set and clear"]
    if data.token is not None and data.rows:
        parts.append(f"token {data.cursor} {data.token}")
        if box.width >= LEAST:
            parts.append(_parts(data, box)[2].note("tokens", box.width < 48))
    hidden = len(data.rows) - box.height
    parts.append(f"{hidden} more ▼" if hidden > 0 else "")
    return " · ".join(part for part in parts if part)


def pointer(data: WatchesData, box: Box) -> int | None:
    if not data.rows or box.width < LEAST:
        return None
    text, value, window = _parts(data, box)
    at = window.cell(data.cursor)
    return 4 + text + value + at if window.count and at >= 0 else None


def render(data: WatchesData, box: Box) -> list[Line]:
    if not data.rows:
        return _nothing(box)[: max(box.height, 0)]
    if box.width < LEAST:
        return too_narrow(box)
    text, value, window = _parts(data, box)
    return [_row(data, box, row, text, value, window) for row in data.rows[: max(box.height, 0)]]


def _nothing(box: Box) -> list[Line]:
    quiet = ink(box.palette, "secondary")
    rows = wrap([(NOTHING, 0)], box.width) if box.width > 0 else []
    return [[Segment("".join(glyph.text for glyph in row), quiet)] for row in rows]


def _parts(data: WatchesData, box: Box) -> tuple[int, int, Columns]:
    """(cells of the texts, cells of the values, the columns of the strips)."""
    width = box.width
    longest = max(cells(row.text) for row in data.rows)
    value = min(max(7, *(cells(row.shown) for row in data.rows)), max(5, width // 3))
    text = min(longest, max(width - 3 - value if width < 36 else width * 2 // 5, LEAST - 3 - 5))
    room = width - 4 - text - value
    return text, value, windowed(data.tokens, room if room >= LEAST_STRIP else 0, 1, data.cursor)


def _row(data: WatchesData, box: Box, row: WatchRow, text: int, value: int, window: Columns) -> Line:
    palette, now = box.palette, row.now
    sign = ("◉" if now is True else "○") if row.stops else ("●" if now is True else "·")
    strong = ink(palette, "accent", bold=True) if now is True else ink(palette, "text")
    line = [Segment(f"{sign} ", strong), Segment(fit(row.text, text), strong)]
    if not row.kind:
        return [*line, Segment(fit(f" {row.why}", max(0, box.width - 2 - text)), ink(palette, "warning"))]
    bad = isinstance(now, float) and not math.isfinite(now)
    style = ink(palette, "warning", bold=True) if bad else ink(palette, "secondary") if row.shown == "–" else strong
    line += [Segment(" "), Segment(fit(row.shown, value, ">"), style)]
    return [*line, Segment(" "), *_strip(data, box, row, window)] if window.count else line


def _strip(data: WatchesData, box: Box, row: WatchRow, window: Columns) -> Line:
    """A column for each token in sight."""
    known = (row.before, *row.values)
    first, last = window.shown.start - data.first, window.shown.stop - data.first
    values, before = known[first + 1 : last + 1], known[first:last]
    if row.kind == "truth":
        signs = ["▆" if value is True else " " if value is None else "▁" for value in values]
    elif row.kind == "text":
        signs = [" " if value is None else "▏" if value != old else "·" for value, old in zip(values, before)]
    else:
        signs = _heights(values, box.scale)
    at = window.cell(data.cursor)
    styles = [_style(box, value, sign, index == at) for index, (value, sign) in enumerate(zip(values, signs))]
    return [Segment("".join(sign for sign, _ in run), style) for style, run in _runs(signs, styles)]


def _runs(signs: Sequence[str], styles: Sequence[Style]) -> list[tuple[Style, list[tuple[str, Style]]]]:
    return [(style, list(run)) for style, run in groupby(zip(signs, styles), key=lambda pair: pair[1])]


def _heights(values: Sequence[Value], scale: str) -> list[str]:
    """Columns of numbers, scaled to the largest magnitude in sight; blank for unknown, ! for what is not finite."""
    numbers = [abs(value) if isinstance(value, float) else math.nan for value in values]
    drawn = columns([float(share) for share in shares(numbers, scale)], 1)[0] if numbers else ""
    return [" " if value is None else "!" if not math.isfinite(size) else sign for value, size, sign in zip(values, numbers, drawn)]


def _style(box: Box, value: Value, sign: str, here: bool) -> Style:
    on = "select" if here and box.palette.color else ""
    if sign == "!":
        return ink(box.palette, "warning", on, bold=True)
    return ink(box.palette, "accent" if value is True else "secondary" if sign in "▁·▏ " else "entropy", on)


def pick(data: WatchesData, box: Box, x: int, y: int) -> Selection | None:
    """The token whose column was clicked."""
    if not data.rows or box.width < LEAST or data.token is None:
        return None
    text, value, window = _parts(data, box)
    return Selection(step=window.column(x - 4 - text - value)) if x >= 4 + text + value else None
