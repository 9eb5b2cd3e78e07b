"""Watches: each breakpoint and watch with its value at the shown token, and where along the text it held or how it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich.segment import Segment
from rich.style import Style

from openmav.conditions import Value
from openmav.paint import Line, cells, columns, fit, ink, one_line, shares, visible
from openmav.panels._grid import Columns, fitting, windowed
from openmav.panels._layers import too_narrow
from openmav.panels._view import View
from openmav.panels._watched import Watched, watched
from openmav.panels._wrap import wrap

TITLE = "Watches"
NEEDS = ()
ROWS = 8
HELP = """\
What it shows: one row for each breakpoint (◉ where it holds, ○ where it does not) and each watch (● and ·): its text, its
value at the token under the cursor, and a strip with one column a token, the oldest on the left: a tall column where it
held, or for a number how large it was; for a text, a thin line where it became another one.

How to read it: the value beside a breakpoint is what it looked at: 5.12 beside entropy > 4. – is unknown: the layer or the
token has no such value, and nothing that is compared with it holds. A breakpoint pauses the run where it holds, before the
model reads that token; space goes on. The key k sets, changes and clears breakpoints and watches.

Formula: docs/conditions.md names all that can be asked and its units. Numbers are those of the other panels.

Source: the breakpoints and watch expressions of debuggers; the condition is tested in the model's process, after each token.

What is normal: a breakpoint that never holds has a limit that is out of reach; let its value run as a watch for a while to
see how it moves.
"""
LEAST, LEAST_STRIP = 14, 8
NOTHING = "Nothing is watched yet. The key k sets breakpoints and watches, such as entropy > 4 or norm(mlp, 3)."


def needs(view: View) -> tuple[str, ...]:
    """What the reader's conditions need."""
    return tuple(sorted({name for one in watched(view) if one.condition is not None for name in one.condition.needs}))


def heading(view: View, width: int) -> str:
    rows = watched(view)
    stops = sum(one.stops for one in rows)
    said = f"{stops} breakpoint{'s' * (stops != 1)}, {len(rows) - stops} watched"
    return fitting([f"Watches · {said}", "Watches"], width) if rows else "Watches"


def note(view: View, width: int, height: int) -> str:
    rows, parts = watched(view), ["k: set and clear"]
    if view.step is not None and rows:
        parts.append(f"token {view.cursor} {visible(view.step.token)}")
        if width >= LEAST:
            parts.append(_parts(view, rows, width)[2].note("tokens", width < 48))
    hidden = len(rows) - height
    parts.append(f"{hidden} more ▼" if hidden > 0 else "")
    return " · ".join(part for part in parts if part)


def render(view: View, width: int, height: int) -> list[Line]:
    rows = watched(view)
    if not rows:
        return _nothing(view, width)[: max(height, 0)]
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    text, value, window = _parts(view, rows, width)
    return [_row(view, one, text, value, window, width) for one in rows[: max(height, 0)]]


def _nothing(view: View, width: int) -> list[Line]:
    quiet = ink(view.palette, "secondary")
    rows = wrap([(NOTHING, 0)], width) if width > 0 else []
    return [[Segment("".join(glyph.text for glyph in row), quiet)] for row in rows]


def _parts(view: View, rows: Sequence[Watched], width: int) -> tuple[int, int, Columns]:
    """(cells of the texts, cells of the values, the columns of the strips)."""
    longest = max(cells(one_line(one.text)) for one in rows)
    values = [one_line(one.shown(view, view.cursor)) if view.step is not None else "–" for one in rows]
    value = min(max(7, *map(cells, values)), max(5, width // 3))
    text = min(longest, max(width - 3 - value if width < 36 else width * 2 // 5, LEAST - 3 - 5))
    room = width - 4 - text - value
    return text, value, windowed(len(view.steps), room if room >= LEAST_STRIP else 0, 1, view.cursor)


def _row(view: View, one: Watched, text: int, value: int, window: Columns, width: int) -> Line:
    palette = view.palette
    now = one.value(view, view.cursor) if view.step is not None else None
    sign = ("◉" if now is True else "○") if one.stops else ("●" if now is True else "·")
    strong = ink(palette, "accent", bold=True) if now is True else ink(palette, "text")
    line = [Segment(f"{sign} ", strong), Segment(fit(one_line(one.text), text), strong)]
    if one.condition is None:
        return [*line, Segment(fit(f" {one.why}", max(0, width - 2 - text)), ink(palette, "warning"))]
    shown = one_line(one.shown(view, view.cursor)) if view.step is not None else "–"
    bad = isinstance(now, float) and not math.isfinite(now)
    style = ink(palette, "warning", bold=True) if bad else ink(palette, "secondary") if shown == "–" else strong
    line += [Segment(" "), Segment(fit(shown, value, ">"), style)]
    return [*line, Segment(" "), *_strip(view, one, window)] if window.count else line


def _strip(view: View, one: Watched, window: Columns) -> Line:
    """A column for each token in sight."""
    values = [one.value(view, index) for index in window.shown]
    before = [one.value(view, index - 1) if index else None for index in window.shown]
    assert one.condition is not None
    if one.condition.kind == "truth":
        signs = ["▆" if value is True else " " if value is None else "▁" for value in values]
    elif one.condition.kind == "text":
        signs = [" " if value is None else "▏" if value != old else "·" for value, old in zip(values, before)]
    else:
        signs = _heights(values, view.options.scale)
    at = window.cell(view.cursor)
    styles = [_style(view, one, value, sign, index == at) for index, (value, sign) in enumerate(zip(values, signs))]
    return [Segment("".join(sign for sign, _ in run), style) for style, run in _runs(signs, styles)]


def _runs(signs: Sequence[str], styles: Sequence[Style]) -> list[tuple[Style, list[tuple[str, Style]]]]:
    return [(style, list(run)) for style, run in groupby(zip(signs, styles), key=lambda pair: pair[1])]


def _heights(values: Sequence[Value], scale: str) -> list[str]:
    """Columns of numbers, scaled to the largest magnitude in sight; blank for unknown, ! for what is not finite."""
    numbers = [abs(value) if isinstance(value, float) else math.nan for value in values]
    drawn = columns([float(share) for share in shares(numbers, scale)], 1)[0] if numbers else ""
    return [" " if value is None else "!" if not math.isfinite(size) else sign for value, size, sign in zip(values, numbers, drawn)]


def _style(view: View, one: Watched, value: Value, sign: str, here: bool) -> Style:
    on = "select" if here else ""
    if sign == "!":
        return ink(view.palette, "warning", on, bold=True)
    return ink(view.palette, "accent" if here or value is True else "secondary" if sign in "▁·▏ " else "entropy", on)


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The token whose column was clicked."""
    rows = watched(view)
    if not rows or width < LEAST or view.step is None:
        return view
    text, value, window = _parts(view, rows, width)
    index = window.column(x - 4 - text - value) if x >= 4 + text + value else None
    return view if index is None else view.at_step(index)
