"""Attention row: where one head looks: its attention over all tokens that the model has read, as bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, columns, fit, fit_line, ink, one_line, percent, shares, widened
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.head_rows import LEAST, columns_of, head_lines, heads_in_sight, pick_head, rows_each
from openmav.panels.widgets.heat_grid import Columns, condensed, fitting
from openmav.panels.widgets.layer_rows import message, that_fit, why_empty
from openmav.panels.widgets.multiples import Multiples, beside_list, together
from openmav.panels.widgets.parts import heading_row
from openmav.panels.widgets.sequence import prompt_length, token_at
from openmav.view import Selection, View

TITLE = "Attention row"
NEEDS = ("attention_rows",)
ALL = "all heads"
MODES = ("strongest first", "strongest, first token left out", "in order", "in order, first token left out", ALL)
HELP = """\
What it shows: for the selected layer and head, how much of the head's attention goes to each token that the model has
read: the token's position, the token (a space is ·, a newline ⏎; bold where the model wrote it), its share in percent, and a
bar.

How to read it: the shares say from where the head brings information to the place of the token under the cursor. Select a
layer with [ and ], a head with { and }. The key v goes through five views: strongest first, or in the order of the text,
each with and without the first token, and all heads of the layer, which stand beside the first view where there is room.
Many heads rest on the first token when they have nothing to do; left out, the others are scaled up to sum to 100 %, and the
lower edge says what was left out. A long text in order is drawn as columns; where there are more tokens than columns, a
column is the sum of neighbours. Of all heads, each has a little chart, scaled to the most that goes to any token but the
first (in few rows, cells coloured by factors of ten), and beside it the token that it looks at most. Maximised (m), the
tokens stand in several lists with their names. Click a generated token to go to it.

Formula: a_j = softmax over the keys j of (query . key_j, scaled), the model's own weights; without the first token: a_j /
(sum of all a_j but a_0).

Source: the model's own attention weights at the last position, in 32-bit floating point (Vaswani et al., 2017).

What is normal: half or more on the first token in many heads; some heads look at the token just before, some at earlier
copies of the same token. A model with a learned sink, or with keys that stand for blocks of several tokens, gives less than
100 % to the tokens: the lower edge says so.
"""
POSITION = 5  # cells of a token's position
WIDEST = 4  # cells of a column in the order of the text
LIST, GAP = 44, 2  # cells of a list of several, and between them
WHOLE = 0.99  # a row that sums to less gives the rest to a learned sink, or to blocks of several tokens


@dataclass(frozen=True)
class RowData:
    """One head's attention over the tokens that the model has read."""

    empty: str | None  # why there is nothing to show; None where there is
    none: str | None  # why this head has no row; None where it has
    mode: str
    layer: int
    head: int
    shares: NDArray[np.float64] | None  # a share for each token from position `first` on; NaN where the model's own is
    first: int
    left_out: float | None  # what the first token took; None: it is among them
    total: float  # what all tokens take together, before anything was left out
    tokens: Mapping[int, str]  # position: text; where the panel has a size, of those that can be in sight
    heads: NDArray[np.float32] | None  # [heads, tokens] of the layer, where all heads are shown or may stand beside the one
    prompt: int  # tokens of the prompt
    steps: int  # generated tokens

    def is_generated(self, position: int) -> bool:
        return 0 <= position - self.prompt < self.steps


def data(view: View) -> RowData:
    rows, mode, why = view.values("attention_rows"), view.mode("attention_row", MODES), None
    row, first, left_out, total = None, 0, None, 0.0
    if rows is not None and 0 <= view.layer < rows.shape[0] and view.head < rows.shape[1]:
        row = rows[view.layer, view.head].astype(np.float64)
        total = float(row.sum())
        if "left out" in mode and len(row) >= 2:
            rest = float(row[1:].sum())
            row, first, left_out = row[1:] / rest if rest > 0 else row[1:], 1, float(row[0])
    if row is None or not np.isfinite(row).all():
        why = view.why_missing("attention_rows", max(view.layer, 0)) or ("no such head" if row is None else None)
    layer_rows = rows[view.layer] if rows is not None and mode in (ALL, MODES[0]) and 0 <= view.layer < rows.shape[0] else None
    named = [] if row is None else _in_sight(view, row, mode)
    if layer_rows is not None:
        named = [*named, *np.argmax(np.nan_to_num(layer_rows), axis=1).tolist()]
    return RowData(
        empty=why_empty(view, rows is not None, "attention_rows"),
        none=None if why is None else one_line(why),
        mode=mode,
        layer=view.layer,
        head=view.head,
        shares=row,
        first=first,
        left_out=left_out,
        total=total,
        tokens={} if row is None else {first + at: token_at(view, first + at) for at in named},
        heads=layer_rows,
        prompt=prompt_length(view),
        steps=len(view.steps),
    )


def _in_sight(view: View, row: NDArray[np.float64], mode: str) -> list[int]:
    """The entries whose tokens a panel of `view.size` can name: those in a list as high as it, and the strongest."""
    most = 0 if view.size is None else view.size[1] * (max(1, view.size[0] // LIST) if view.maximised else 1)
    if view.size is None or len(row) <= most:
        return list(range(len(row)))
    return _strongest(row, max(most, 1)) if mode.startswith("strongest") else [int(np.argmax(row))]


def _strongest(row: NDArray[np.float64], count: int) -> list[int]:
    return [int(at) for at in np.argsort(-row, kind="stable")[: max(count, 0)]]


def _is_ordered(data: RowData) -> bool:
    return data.mode.startswith("in order")


def _row(data: RowData) -> NDArray[np.float64] | None:
    """The row, where it can be drawn."""
    return data.shares if data.shares is not None and np.isfinite(data.shares).all() else None


def heading(data: RowData, box: Box) -> str:
    layer = max(data.layer, 0)
    if data.mode == ALL:
        return fitting([f"Attention of layer {layer} · all heads", f"Attention · layer {layer}, all heads", ALL], box.width)
    full, short = f"Attention of layer {layer} head {data.head}", f"L{layer}.H{data.head}"
    return fitting([f"{full} · {data.mode}", f"{short} · {data.mode}", full, short], box.width)


def _multiples(data: RowData, box: Box) -> Multiples | None:
    """None where there is no room for them, or where they are all that is shown, or no part of the view."""
    if data.heads is None or data.mode == ALL or data.none is not None or box.maximised:
        return None
    return beside_list(len(data.heads), box, LIST)


def _heads_box(data: RowData, box: Box) -> Box | None:
    """The box of the charts of all heads, without their heading; None where they are not shown."""
    if data.heads is None or data.empty is not None:
        return None
    beside = _multiples(data, box)
    return box if data.mode == ALL else None if beside is None else replace(beside.box, height=beside.box.height - 1)


def legend(data: RowData, box: Box) -> Line | None:
    inside = _heads_box(data, box)
    if data.heads is None or inside is None or rows_each(data.heads, inside) > 1:
        return None
    return heat_grid.legend(box.palette, LEAST, 1, "of the head, log", decimals=3)


def note(data: RowData, box: Box) -> str:
    row, short = _row(data), box.width < 60
    if data.heads is not None and data.empty is None and data.mode == ALL:
        shown, where = heads_in_sight(data.heads, data.head, box), columns_of(data.heads, box)
        hidden = f"heads {shown[0]}–{shown[-1]} of {len(data.heads)}" if len(shown) < len(data.heads) else ""
        together = f"column: sum of {where.together} tokens" if where.together > 1 else ""
        said = (hidden, together, f"{data.heads.shape[1]} tokens", "v: next view")
        return " · ".join(part for part in said if part)
    if row is None:
        return ""
    parts = []
    if data.left_out is not None:
        gone = percent(data.left_out).strip()
        parts.append(f"the first had {gone}" if short else f"without the first token ({gone}), scaled to 100 %")
    if data.total < WHOLE:
        parts.append(f"{percent(1 - data.total).strip()} goes to no token")
    beside = _multiples(data, box)
    return " · ".join([*parts, _extent(data, row, box if beside is None else beside.list_box, short), "v: next view"])


def _extent(data: RowData, row: NDArray[np.float64], box: Box, short: bool) -> str:
    """How many tokens there are, and how many of them are drawn."""
    count, together, rows = len(row), _columns(row, box).together, _across(row, box) * box.height
    if _as_columns(data, row, box):
        return f"{count} tokens" + ((f", {together} a column" if short else f", a column is the sum of {together}") if together > 1 else "")
    if count <= rows:
        return f"{count} tokens"
    others = percent(float(np.sort(row)[: count - rows].sum())).strip()
    return f"{rows} of {count} tokens" + (f", rest {others}" if short else f", the others take {others}")


def _as_columns(data: RowData, row: NDArray[np.float64], box: Box) -> bool:
    return _is_ordered(data) and len(row) > _across(row, box) * box.height


def _across(row: NDArray[np.float64], box: Box) -> int:
    """Lists side by side: several in a maximised panel whose tokens do not fit in one."""
    fits = max(1, (box.width + GAP) // (LIST + GAP)) if box.maximised else 1
    return min(fits, max(1, -(-len(row) // max(box.height, 1))))


def _columns(row: NDArray[np.float64], box: Box) -> Columns:
    return condensed(len(row), max(box.width, 1), WIDEST)


def render(data: RowData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    if data.heads is not None and data.none is None and data.mode == ALL:
        return that_fit(box, head_lines(data.heads, data.head, data.tokens, box))
    row, beside = _row(data), _multiples(data, box)
    if row is None:
        return [_none(data, box)]
    return _list(data, row, box) if beside is None else _with_multiples(data, row, box, beside)


def _with_multiples(data: RowData, row: NDArray[np.float64], box: Box, beside: Multiples) -> list[Line]:
    """The list of the selected head, and all heads of its layer beside it or below."""
    listed, inside = _list(data, row, beside.list_box), _heads_box(data, box)
    charts: list[Line] = []
    if data.heads is not None and inside is not None:
        bars = " · a full bar: its most but on the first token" if rows_each(data.heads, inside) > 1 else ""
        charts.append(heading_row(beside.box, beside.box.width, f"all heads of layer {data.layer}{bars}", "strongest").line)
        charts += that_fit(inside, head_lines(data.heads, data.head, data.tokens, inside))
    return together(beside, listed, charts, box.height)


def _list(data: RowData, row: NDArray[np.float64], box: Box) -> list[Line]:
    """The tokens of one head."""
    if _as_columns(data, row, box):
        return _column_lines(data, row, box)
    lengths, across = shares(row, box.scale), _across(row, box)
    if across == 1:
        return that_fit(box, [_token_line(data, row, at, float(lengths[at]), box) for at in _listed(data, row, box)])
    listed, narrow = _listed(data, row, box), replace(box, width=(box.width + GAP) // across - GAP)
    lines: list[Line] = [[] for _ in range(min(box.height, len(listed)))]
    for at, entry in enumerate(listed):
        gap = [Segment(" " * GAP)] if at >= box.height else []
        lines[at % box.height] += [*gap, *fit_line(_token_line(data, row, entry, float(lengths[entry]), narrow), narrow.width)]
    return lines


def _none(data: RowData, box: Box) -> Line:
    """Why there is no row, or that it holds what is not a number."""
    if data.none is not None:
        return [Segment(fit(f"none: {data.none}", box.width), ink(box.palette, "secondary"))]
    return [Segment(fit("! NaN or infinity in this row", box.width), ink(box.palette, "warning", bold=True))]


def _listed(data: RowData, row: NDArray[np.float64], box: Box) -> list[int]:
    """Which entries of the row are listed, from the top."""
    return list(range(len(row))) if _is_ordered(data) else _strongest(row, _across(row, box) * box.height)


def _token_line(data: RowData, row: NDArray[np.float64], at: int, share: float, box: Box) -> Line:
    position, width = data.first + at, box.width
    token = max(4, min(20, width * 3 // 10))
    longest = max(0, width - POSITION - 1 - token - 1 - 7 - 1)
    number = f"{position:>{POSITION}} " if width > POSITION + 1 + token + 1 + 7 else ""
    longest = box.longest(longest)
    return [
        Segment(number, ink(box.palette, "secondary")),
        Segment(f"{fit(data.tokens.get(position, '?'), token)} ", ink(box.palette, "text", bold=data.is_generated(position))),
        Segment(percent(float(row[at])), ink(box.palette, "text")),
        Segment(f" {bar(share, longest)}" if longest else "", ink(box.palette, "attention")),
    ]


def _column_lines(data: RowData, row: NDArray[np.float64], box: Box) -> list[Line]:
    """Upright bars over the whole text, and below them where the text begins, where it peaks and where it ends."""
    where = _columns(row, box)
    sums = np.add.reduceat(row, range(0, len(row), where.together))
    axis = box.height >= 3
    bars = columns([float(share) for share in shares(sums, box.scale)], max(1, box.height - axis))
    lines: list[Line] = [[Segment(widened(text, where.wide), ink(box.palette, "attention"))] for text in bars]
    if axis:
        lines.append([Segment(_axis(data, row, where, box.width), ink(box.palette, "secondary"))])
    return lines


def _axis(data: RowData, row: NDArray[np.float64], where: Columns, width: int) -> str:
    """The strongest token under its column, as near as it fits."""
    peak = int(np.argmax(row))
    text = f"▲ {data.first + peak} {data.tokens.get(data.first + peak, '?')} {percent(float(row[peak])).strip()}"
    under = where.cell(peak) * where.wide
    if under + len(text) > width:
        turned = f"{text[2:]} ▲"
        return fit(fit("", max(0, under - len(turned) + 1)) + turned, width)
    return fit(" " * under + text, width)


def pick(data: RowData, box: Box, x: int, y: int) -> Selection | None:
    """The generated token that was clicked, and the head where all are shown."""
    row, inside, beside = _row(data), _heads_box(data, box), _multiples(data, box)
    if data.heads is not None and data.none is None and inside is not None:
        left, top = (0, 0) if beside is None else (beside.x, beside.y + 1)
        if x >= left and y >= top:
            return pick_head(data.heads, data.head, data.prompt, data.steps, inside, x - left, y - top)
    if row is None:
        return None
    box = box if beside is None else beside.list_box
    if _as_columns(data, row, box):
        column = _columns(row, box).column(x)
        at = -1 if column is None else column
    else:
        listed = _listed(data, row, box)
        entry = x // ((box.width + GAP) // _across(row, box)) * box.height + y
        at = listed[entry] if 0 <= y < box.height and 0 <= entry < len(listed) else -1
    generated = 0 <= at < len(row) and data.is_generated(data.first + at)
    return Selection(step=data.first + at - data.prompt) if generated else None
