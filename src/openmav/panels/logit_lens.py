"""Logit lens: what the model would predict next if it ended after each layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, percent, probability_shares, visible
from openmav.panels.base import Box
from openmav.panels.widgets.difference import minus
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    missing_of,
    pick_layer,
    why_empty,
)
from openmav.panels.widgets.lens import MEASURE, Lens, lens_of, mark, piece, summary
from openmav.record import Array, Ids
from openmav.record.ranges import ranges
from openmav.view import View

TITLE = "Logit lens"
NEEDS = ("logit_lens",)
LAYERS = True
WEIGHT = 1.3
HELP = """\
What it shows: one row a layer, the highest layer on top: the token that the model would predict next if it ended after this
layer, with a bar and its probability; where there is room, the layer's next tokens too. A space is shown as · and a
newline as ⏎. The chosen token is amber.

How to read it: read from below to see the answer form. ◇ marks the first layer where the final answer is
top-1, ◆ the layer from which it is stable, │ the layers above, ◦ one where it is top-1 for a while; the lower edge
says it in words. The highest row is the model's own output. Bars go from 0 to 100 %; --scale changes the bars, never the
numbers.

Formula: softmax(unembed(final norm(x_l))), with x_l the residual stream after layer l, through the model's own final norm
and head; in 32-bit floating point, over the whole vocabulary.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The rows are computed for a token while this panel is
shown.

What is normal: nonsense or copies of the last token in the lower layers, a sudden turn to sensible words in the middle,
and the final answer only in the last quarter. A token that is stable early was easy. Small models turn late.
"""
LEAST_TOKEN, LEAST_BAR = 8, 4  # cells
OTHER = 18  # cells of one more token and its probability

pick = pick_layer


@dataclass(frozen=True, kw_only=True)
class LensData(LayerData):
    probs: Array | None  # [layers, k], most likely first
    ids: Ids | None  # [layers, k], -1 for none
    tokens: tuple[tuple[str, ...], ...]  # [layers][k], the texts of `ids`
    marks: tuple[str, ...]  # [layers]: ◇ the first layer that predicts the final answer, ◆ the one from which on all do, │ ◦ or a space
    answer: str | None  # the top token of the last layer
    first: int  # the first layer that predicts it
    stable: int  # the first layer from which on all do
    chosen: str  # the token that was chosen
    chosen_id: int
    is_chosen: bool  # the answer is the token that was chosen
    differs: tuple[int, ...] | None = None  # layers whose top token is another one than the pinned step's; None: there is none to compare
    minus: str = ""  # that step


def data(view: View) -> LensData:
    step = view.step
    lens = None if step is None else lens_of(step)
    known = step is not None and lens is not None and lens.answer >= 0
    return LensData(
        empty=why_empty(view, lens is not None),
        layers=view.layers,
        layer=view.layer,
        missing=missing_of(view, MEASURE),
        probs=None if lens is None else lens.probs,
        ids=None if lens is None else lens.ids,
        tokens=() if step is None or lens is None else tuple(tuple(piece(step, one) for one in row) for row in lens.ids.tolist()),
        marks=() if lens is None else tuple(mark(lens, layer) for layer in range(len(lens.ids))),
        answer=piece(step, lens.answer) if known and step is not None and lens is not None else None,
        first=-1 if lens is None else lens.first,
        stable=-1 if lens is None else lens.stable,
        chosen="" if step is None else piece(step, step.token_id) if step.token_id in step.pieces else visible(step.token),
        chosen_id=-1 if step is None else step.token_id,
        is_chosen=step is not None and lens is not None and lens.answer == step.token_id,
        differs=_differs(view, lens),
        minus=minus(view),
    )


def _differs(view: View, lens: Lens | None) -> tuple[int, ...] | None:
    other = None if view.reference is None else lens_of(view.reference)
    if lens is None or other is None or len(other.ids) != len(lens.ids):
        return None
    return tuple(int(layer) for layer in (other.ids[:, 0] != lens.ids[:, 0]).nonzero()[0])


def heading(data: LensData, box: Box) -> str:
    return fitting(["Logit lens · each layer's top token and p", "Logit lens · top token", "Logit lens"], box.width)


def note(data: LensData, box: Box) -> str:
    short = box.width < 48
    parts = [hidden_note(data, box, short)]
    if data.differs is not None:
        where = f"another top token in {ranges(data.differs)}" if data.differs else "the same top tokens"
        parts = [f"{where}, {data.minus.replace('minus', 'against', 1)}", *parts]
    elif data.answer is not None:
        parts = [summary(data.answer, data.first, data.stable, short), *parts, "" if data.is_chosen else f"chosen: {data.chosen}"]
    return " · ".join(part for part in parts if part)


def _widths(box: Box, count: int, width: int) -> tuple[int, int, int]:
    """(cells of the top token, of the longest bar, how many more of `count` tokens) in `width` cells."""
    room = width - 2 - 1 - 8
    token = max(4, min(16, room if room < LEAST_TOKEN + LEAST_BAR else max(LEAST_TOKEN, room // 2)))
    spare = width - 2 - token - 1 - 8 - 12
    others = max(0, min(count - 1, spare // OTHER))
    left = max(0, width - 2 - token - 1 - 8 - others * OTHER)
    longest = min(left, 24) if others else left
    return token, box.longest(longest) if longest >= LEAST_BAR else 0, others


def render(data: LensData, box: Box) -> list[Line]:
    probs, ids = data.probs, data.ids
    if data.empty is not None or probs is None or ids is None:
        return message(box, data.empty or "")
    lengths = probability_shares(probs[:, 0], box.scale)
    widths = _widths(box, ids.shape[1], box.width - gutter_width(data, box))

    def cell(layer: int, width: int) -> Line:
        return _row(data, box, layer, probs[layer].tolist(), ids[layer].tolist(), float(lengths[layer]), widths, width)

    return layer_lines(data, box, cell)


def _row(
    data: LensData, box: Box, layer: int, probs: list[float], ids: list[int], share: float, widths: tuple[int, int, int], width: int
) -> Line:
    token_width, longest, others = widths
    palette, why, value = box.palette, data.missing[layer], probs[0]
    if ids[0] < 0 and why is not None:
        return [Segment(fit(f"  none: {why}", width), ink(palette, "secondary"))]
    if not math.isfinite(value):
        return [Segment(fit("! NaN" if math.isnan(value) else "! inf", width), ink(palette, "warning", bold=True))]
    chosen, top = ids[0] == data.chosen_id, data.tokens[layer][0]
    role, bold = "accent" if chosen else "text", layer >= data.stable >= 0 or layer == data.layer
    line = [Segment(f"{data.marks[layer]} ", ink(palette, "accent" if chosen else "secondary", bold=True))]
    if width < 2 + token_width + 1 + 7:  # the token alone
        return [*line, Segment(fit(top, max(1, width - 2)), ink(palette, role, bold=bold))]
    line.append(Segment(f"{fit(top, token_width)} ", ink(palette, role, bold=bold)))
    if longest:
        shown = bar(share, longest)
        line += [Segment(shown, ink(palette, "accent" if chosen else "probability")), Segment(" " * (longest - len(shown) + 1))]
    line.append(Segment(percent(value), ink(palette, "text", bold=layer == data.layer)))
    for token_id, token, p in list(zip(ids, data.tokens[layer], probs))[1 : others + 1]:
        if token_id >= 0:
            line.append(Segment(f"  {fit(token, OTHER - 10)}", ink(palette, "accent" if token_id == data.chosen_id else "residual")))
            line.append(Segment(f" {percent(p)}", ink(palette, "secondary")))
    return line
