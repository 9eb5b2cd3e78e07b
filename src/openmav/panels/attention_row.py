"""Attention row: where one head looks: its attention over all tokens that the model has read, as bars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, columns, fit, ink, one_line, percent, shares, widened
from openmav.panels._grid import Columns, condensed, fitting
from openmav.panels._layers import not_captured, that_fit, waiting
from openmav.panels._sequence import step_at, token_at
from openmav.panels._view import View

TITLE = "Attention row"
NEEDS = ("attention_rows",)
MODES = ("strongest first", "strongest, first token left out", "in order", "in order, first token left out")
HELP = """\
What it shows: for the selected layer and head, how much of the head's attention goes to each token that the model has
read: the token's position, the token (a space is ·, a newline ⏎; bold where the model wrote it), its share in percent, and a
bar.

How to read it: the shares say from where the head brings information to the place of the token under the cursor. Select
a layer with [ and ], a head with { and }. The key v goes through four views: strongest first, or in the order of the text,
each with and without the first token. Many heads rest on the first token when they have nothing to do; left out, the
others are scaled up to sum to 100 %, and the lower edge says what was left out. A long text in order is drawn as columns;
where there are more tokens than columns, a column is the sum of neighbours. Click a generated token to go to it.

Formula: a_j = softmax over the keys j of (query . key_j, scaled), the model's own weights; without the first token: a_j /
(sum of all a_j but a_0).

Source: the model's own attention weights at the last position, in 32-bit floating point (Vaswani et al., 2017).

What is normal: half or more on the first token in many heads; some heads look at the token just before, some at earlier
copies of the same token. A model with a learned sink gives less than 100 % to the tokens: the lower edge says so.
"""
POSITION = 5  # cells of a token's position
WIDEST = 4  # cells of a column in the order of the text
LEARNED = 0.99  # a row that sums to less gives the rest to a learned sink


class Row(NamedTuple):
    """What is drawn: a share for each token in sight, and what was left out."""

    values: NDArray[np.float64]
    first: int  # position of the first of them
    left_out: float | None  # what the first token took; None: it is among them
    total: float  # what all tokens take together, before anything was left out


def _row(view: View) -> Row | None:
    """The row of the selected head; None where it has none."""
    rows = view.values("attention_rows")
    if rows is None or not (0 <= view.layer < rows.shape[0] and view.head < rows.shape[1]):
        return None
    row = rows[view.layer, view.head].astype(np.float64)
    total = float(row.sum())
    if "left out" not in view.mode("attention_row", MODES) or len(row) < 2:
        return Row(row, 0, None, total)
    rest = float(row[1:].sum())
    return Row(row[1:] / rest if rest > 0 else row[1:], 1, float(row[0]), total)


def _ordered(view: View) -> bool:
    return view.mode("attention_row", MODES).startswith("in order")


def heading(view: View, width: int) -> str:
    mode, layer = view.mode("attention_row", MODES), max(view.layer, 0)
    who = f"Attention of layer {layer} head {view.head}"
    return fitting([f"{who} · {mode}", f"L{layer}.H{view.head} · {mode}", who, f"L{layer}.H{view.head}"], width)


def note(view: View, width: int, height: int) -> str:
    row, short = _row(view), width < 60
    if row is None or not np.isfinite(row.values).all():
        return ""
    parts = []
    if row.left_out is not None:
        gone = percent(row.left_out).strip()
        parts.append(f"the first had {gone}" if short else f"without the first token ({gone}), scaled to 100 %")
    if row.total < LEARNED:
        parts.append(f"a learned sink takes {percent(1 - row.total).strip()}")
    return " · ".join([*parts, _extent(view, row, width, height, short), "v: next view"])


def _extent(view: View, row: Row, width: int, height: int, short: bool) -> str:
    """How many tokens there are, and how many of them are drawn."""
    count, together = len(row.values), _columns(row, width).together
    if _as_columns(view, row, height):
        return f"{count} tokens" + ((f", {together} a column" if short else f", a column is the sum of {together}") if together > 1 else "")
    if count <= height:
        return f"{count} tokens"
    others = percent(float(np.sort(row.values)[: count - height].sum())).strip()
    return f"{height} of {count} tokens" + (f", rest {others}" if short else f", the others take {others}")


def _as_columns(view: View, row: Row, height: int) -> bool:
    return _ordered(view) and len(row.values) > height


def _columns(row: Row, width: int) -> Columns:
    return condensed(len(row.values), max(width, 1), WIDEST)


def render(view: View, width: int, height: int) -> list[Line]:
    rows, row = view.values("attention_rows"), _row(view)
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if rows is None:
        return not_captured(view, width, "attention_rows")
    if row is None or not np.isfinite(row.values).all():
        return [_without(view, width, row)]
    if _as_columns(view, row, height):
        return _column_lines(view, row, width, height)
    lengths = shares(row.values, view.options.scale)
    return that_fit(view, width, [_token_line(view, row, at, float(lengths[at]), width) for at in _listed(view, row, height)])


def _without(view: View, width: int, row: Row | None) -> Line:
    """Why there is no row, or that it holds what is not a number."""
    why = view.why_missing("attention_rows", max(view.layer, 0))
    if why is not None or row is None:
        return [Segment(fit(f"none: {one_line(why or 'no such head')}", width), ink(view.palette, "secondary"))]
    return [Segment(fit("! NaN or infinity in this row", width), ink(view.palette, "warning", bold=True))]


def _listed(view: View, row: Row, height: int) -> list[int]:
    """Which entries of the row are listed, from the top."""
    if _ordered(view):
        return list(range(len(row.values)))
    order = np.argsort(-row.values, kind="stable")
    return [int(at) for at in order[: max(height, 0)]]


def _token_line(view: View, row: Row, at: int, share: float, width: int) -> Line:
    position = row.first + at
    selected = step_at(view, position) is not None
    room = max(4, min(20, width * 3 // 10))
    longest = max(0, width - POSITION - 1 - room - 1 - 7 - 1)
    number = f"{position:>{POSITION}} " if width > POSITION + 1 + room + 1 + 7 else ""
    longest = min(longest, view.options.max_bar_length or longest)
    quiet = ink(view.palette, "secondary")
    return [
        Segment(number, quiet),
        Segment(f"{fit(token_at(view, position), room)} ", ink(view.palette, "text", bold=selected)),
        Segment(percent(float(row.values[at])), ink(view.palette, "text")),
        Segment(f" {bar(share, longest)}" if longest else "", ink(view.palette, "attention")),
    ]


def _column_lines(view: View, row: Row, width: int, height: int) -> list[Line]:
    """Upright bars over the whole text, and below them where the text begins, where it peaks and where it ends."""
    where = _columns(row, width)
    sums = np.add.reduceat(row.values, range(0, len(row.values), where.together))
    axis = height >= 3
    made = columns([float(share) for share in shares(sums, view.options.scale)], max(1, height - axis))
    lines: list[Line] = [[Segment(widened(text, where.wide), ink(view.palette, "attention"))] for text in made]
    if axis:
        lines.append([Segment(_axis(view, row, where, width), ink(view.palette, "secondary"))])
    return lines


def _axis(view: View, row: Row, where: Columns, width: int) -> str:
    """The strongest token under its column, as near as it fits."""
    peak = int(np.argmax(row.values))
    said = f"▲ {row.first + peak} {token_at(view, row.first + peak)} {percent(float(row.values[peak])).strip()}"
    under = where.cell(peak) * where.wide
    if under + len(said) > width:
        turned = f"{said[2:]} ▲"
        return fit(fit("", max(0, under - len(turned) + 1)) + turned, width)
    return fit(" " * under + said, width)


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The generated token that was clicked."""
    row = _row(view)
    if row is None or not np.isfinite(row.values).all():
        return view
    if _as_columns(view, row, height):
        column = _columns(row, width).column(x)
        at = -1 if column is None else column
    else:
        listed = _listed(view, row, height)
        at = listed[y] if 0 <= y < len(listed) else -1
    index = step_at(view, row.first + at) if 0 <= at < len(row.values) else None
    return view if index is None else view.at_step(index)
