"""Lens map: the logit lens of many tokens side by side: a cell is a layer's top token, coloured by its probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, fit, ink, line_width, percent, surprise, visible
from openmav.panels.base import Box
from openmav.panels.widgets import heat_grid
from openmav.panels.widgets.heat_grid import Columns, fitting, heat_line, text_cell, windowed
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    missing_of,
    not_captured,
    shown_layers,
    why_no_layers,
)
from openmav.panels.widgets.lens import MEASURE, Lens, lens_of, mark, piece, summary
from openmav.panels.widgets.sequence import tokens_in_sight
from openmav.record import Step
from openmav.view import Selection, View

TITLE = "Lens map"
NEEDS = ("logit_lens",)
MODES = ("tokens", "compact")
LAYERS = True
WEIGHT = 3.0
FOOT = 1  # the text itself
HELP = """\
What it shows: one row a layer, the highest on top, and one column for each generated token, the newest on the right. A
cell holds the token that this layer predicts next; its colour is the probability there, from 0 to 1, as the ramp on the
upper edge shows. Where there is room, the lowest row is the text that was generated.

How to read it: go up a column to see the answer to one token form. ◇ marks the first layer where the final answer is
top-1, ◆ the layer from which it is stable, │ the layers above. Columns that turn strong far down were easy; those that do so
only at the top were hard. The column under the cursor begins with a reversed stripe; click a cell to go there. The key v
shows narrow cells without text, and so more tokens.

Formula: the largest entry of softmax(unembed(final norm(x_l))), with x_l the residual stream after layer l.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The lens is computed for a token while a panel of it is
shown; columns of tokens that were made before stay empty (·), and the lower edge says how many they are.

What is normal: a strong band on top whose lower edge goes up and down with how hard each token was; quiet nonsense below.
"""
WIDE = 10  # cells of a column with text
LEAST_WIDE = 7
COMPACT = 2


@dataclass(frozen=True, kw_only=True)
class LensMapData(LayerData):
    compact: bool
    probs: NDArray[np.float64]  # [tokens, layers]: of each layer's top token, from token `start` on; NaN where there is none
    none: NDArray[np.bool_]  # [tokens, layers]: no top token, because the layer has none or the lens was not computed
    tops: tuple[tuple[str, ...], ...]  # [tokens][layers], the top tokens; () in compact mode, and for a token without a lens
    marks: tuple[tuple[str, ...], ...]  # [tokens][layers]: ◇ the answer's first layer, ◆ stable from there on, │ ◦ or a space
    captured: tuple[bool, ...]  # [tokens]: whether the measure was computed for this token
    written: tuple[str, ...]  # [tokens], the text itself
    start: int
    tokens: int  # all generated tokens, of which those above can be in sight
    cursor: int
    top: str | None  # the selected layer's top token at the cursor; "none: why" where it has none; None without a lens
    top_prob: float | None
    answer: str | None  # the final answer at the cursor
    first: int  # the first layer that predicts it
    stable: int  # the first layer from which on all do
    why_none: str  # why no token in sight has a lens, where none has


def data(view: View) -> LensMapData:
    compact = view.mode("lens_map", MODES) == "compact"
    sight = tokens_in_sight(view, COMPACT if compact else LEAST_WIDE)
    steps = [view.steps[at] for at in sight]
    lenses = [lens_of(step) for step in steps]
    step, now = view.step, lens_of(view.step) if view.step is not None else None
    known = now is not None and now.answer >= 0
    missing = missing_of(view, MEASURE)
    top, top_prob = (None, None) if step is None or now is None else _top(step, now, view.layer, missing)
    return LensMapData(
        empty=why_no_layers(view),
        layers=view.layers,
        layer=view.layer,
        missing=missing,
        compact=compact,
        probs=np.array([_probs(lens, view.layers) for lens in lenses], dtype=np.float64).reshape(len(steps), view.layers),
        none=np.array([_none(lens, view.layers) for lens in lenses], dtype=np.bool_).reshape(len(steps), view.layers),
        tops=() if compact else tuple(_tops(step, lens) for step, lens in zip(steps, lenses)),
        marks=() if compact else tuple(_marks(lens) for lens in lenses),
        captured=tuple(lens is not None for lens in lenses),
        written=tuple(visible(step.token) for step in steps),
        start=sight.start,
        tokens=len(view.steps),
        cursor=view.cursor,
        top=top,
        top_prob=top_prob,
        answer=piece(step, now.answer) if known and now is not None and step is not None else None,
        first=-1 if now is None else now.first,
        stable=-1 if now is None else now.stable,
        why_none=not_captured(view, MEASURE),
    )


def _probs(lens: Lens | None, layers: int) -> NDArray:
    return np.full(layers, np.nan) if lens is None else lens.probs[:, 0]


def _none(lens: Lens | None, layers: int) -> NDArray[np.bool_]:
    return np.ones(layers, dtype=np.bool_) if lens is None else np.less(lens.ids[:, 0], 0)


def _tops(step: Step, lens: Lens | None) -> tuple[str, ...]:
    return () if lens is None else tuple(piece(step, token_id) for token_id in lens.ids[:, 0].tolist())


def _marks(lens: Lens | None) -> tuple[str, ...]:
    return () if lens is None else tuple(mark(lens, layer) for layer in range(len(lens.ids)))


def _top(step: Step, lens: Lens, layer: int, missing: tuple[str | None, ...]) -> tuple[str | None, float | None]:
    """A layer's top token and its probability; why it has none and None."""
    if not 0 <= layer < len(lens.ids):
        return None, None
    token_id, why = int(lens.ids[layer, 0]), missing[layer]
    return (f"none: {why}", None) if why is not None and token_id < 0 else (piece(step, token_id), float(lens.probs[layer, 0]))


def _columns(data: LensMapData, box: Box) -> Columns:
    width = box.width - gutter_width(data, box)
    if data.compact:
        return windowed(data.tokens, width, COMPACT, data.cursor)
    least = WIDE if width >= 4 * WIDE else LEAST_WIDE
    return windowed(data.tokens, width, width // max(1, width // least) if width >= least else max(width, 1), data.cursor)


def _has_foot(data: LensMapData, box: Box) -> bool:
    return not data.compact and box.height >= data.layers + FOOT


def heading(data: LensMapData, box: Box) -> str:
    """Leaves room for the legend."""
    by = "coloured" if box.palette.color else "shaded"
    options = [f"Lens map · each layer's top token, {by} by its p", "Lens map · top tokens", "Lens map"]
    return fitting(options, box.width - line_width(legend(data, box)) - 4)


def legend(data: LensMapData, box: Box) -> Line:
    return heat_grid.legend(box.palette, 0, 1, "p", decimals=0)


def note(data: LensMapData, box: Box) -> str:
    if data.empty is not None:
        return ""
    columns, short = _columns(data, box), box.width < 48
    parts = [columns.note("tokens", short), hidden_note(data, box, short)]
    answer = "" if data.answer is None else f"token {data.cursor}: {summary(data.answer, data.first, data.stable)}"
    parts = [*parts, answer, _at_cursor(data)] if box.width < 80 else [answer, *parts, _at_cursor(data)]
    empty = sum(not data.captured[at - data.start] for at in columns.shown)
    parts.append(f"{empty} without a lens (made while none was shown)" if empty else "")
    return " · ".join(part for part in [*parts, "v: compact" if not data.compact else "v: tokens"] if part)


def _at_cursor(data: LensMapData) -> str:
    """The selected layer's top token and its probability."""
    if data.top is None:
        return ""
    return f"layer {data.layer}: {data.top}{'' if data.top_prob is None else f' {percent(data.top_prob).strip()}'}"


def render(data: LensMapData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    columns = _columns(data, box)
    if not any(data.captured[at - data.start] for at in columns.shown):
        return message(box, data.why_none)

    def cell(layer: int, width: int) -> Line:
        return _compact_row(data, box, columns, layer) if data.compact else _token_row(data, box, columns, layer)

    lines = layer_lines(data, box, cell)
    return [*lines, _foot(data, box, columns)] if _has_foot(data, box) else lines


def _share(data: LensMapData, at: int, layer: int) -> float | None:
    """The probability of the layer's top token; None where it has no lens."""
    return None if data.none[at, layer] else float(data.probs[at, layer])


def _compact_row(data: LensMapData, box: Box, columns: Columns, layer: int) -> Line:
    row = [_share(data, at - data.start, layer) for at in columns.shown]
    return heat_line(box.palette, row, columns.wide, columns.cell(data.cursor))


def _token_row(data: LensMapData, box: Box, columns: Columns, layer: int) -> Line:
    line: Line = []
    for at in columns.shown:
        kept, wide = at - data.start, columns.wide
        share = _share(data, kept, layer)
        shown = data.marks[kept][layer] if data.marks[kept] else " "
        text = "·" if share is None else _cell_text(box, data.tops[kept][layer], wide - 1)
        if at == data.cursor and wide > 1:
            stripe = surprise.cursor(box.palette)
            line += [Segment(shown, stripe), text_cell(box.palette, text, share, wide - 1, True)]
        else:
            line.append(text_cell(box.palette, shown + text, share, wide))
    return line


def _cell_text(box: Box, token: str, width: int) -> str:
    """The token, with a space at the end, so that columns stand apart; without colour, a glyph goes before it."""
    return f"{fit(token, max(0, width - 1 - (not box.palette.color)))} "


def _foot(data: LensMapData, box: Box, columns: Columns) -> Line:
    """The generated tokens themselves."""
    line: Line = [Segment(fit("", gutter_width(data, box)))]
    for at in columns.shown:
        style = surprise.cursor(box.palette) if at == data.cursor else ink(box.palette, "text", bold=True)
        line += [Segment(" "), Segment(fit(data.written[at - data.start], columns.wide - 1), style)]
    return line


def pick(data: LensMapData, box: Box, x: int, y: int) -> Selection:
    """The layer of the row, and the token of the column."""
    rows = shown_layers(data, box)
    index = _columns(data, box).column(x - gutter_width(data, box))
    return Selection(layer=rows[y] if 0 <= y < len(rows) else None, step=index)
