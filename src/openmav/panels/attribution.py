"""Attribution: what each layer's attention and MLP adds to the logit of the chosen token, or to its lead over another one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, fit, ink, number_text
from openmav.panels.base import Box
from openmav.panels.widgets.difference import minus
from openmav.panels.widgets.diverging import diverging_bar, floating_bar, signed, signed_shares
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    missing_of,
    pick_layer,
    that_fit,
    why_empty,
)
from openmav.panels.widgets.logit_parts import Sum, has_parts, less, sum_of
from openmav.panels.widgets.rival_parts import Rival, rival_lines, rivals_of
from openmav.record import Step
from openmav.record.nonfinite import hiding
from openmav.view import View

TITLE = "Attribution"
NEEDS = ("attribution",)
LAYERS = True
WEIGHT = 1.6
MODES = ("waterfall", "around 0")
FOOT = 4
MORE = 12  # with the most likely tokens' logits
HELP = """\
What it shows: what each layer adds to the logit of the chosen token, the highest layer on top, as a waterfall from the
embedding at the bottom to the output: a bar begins where the sum of all below it ends, and goes to the right (orange) where
the layer raises the logit, to the left (blue) where it lowers it. Beside it are what attention and the MLP add, and the sum
so far. Below the layers, or on the lower edge, is the rest of the sum: the embedding, the biases, what is not explained, and
what layers add beside their attention and MLP (per-layer inputs), where they do. The key v draws two bars around 0 instead,
attention (left) and MLP (right), as does a narrow panel. Where there is room, the logits of the most likely tokens stand
below, each as the sum of all attention, all MLPs and the rest.

How to read it: long orange bars show which layers raise this token's logit. The numbers add up to the logit: the sum and the
model's own logit stand next to each other. Select another candidate (up and down keys): then all numbers are the chosen
token's minus that one's, and say which layers decided between the two. All bars have one scale.

Formula: (what the sub-block adds to the residual stream) . (direction of the token's logit), with the scale of the final
norm held at its value here; in logits. A minus B: the difference of the two, which is unaffected by what raises all
logits alike. --scale log draws the bars as ln(1 + |v|); the numbers stay.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), direct logit attribution. Of two
candidates, both must be among the ten most likely, or chosen.

What is normal: most parts near 0, a few late layers with several logits, some strongly negative. An early layer counts
only what it adds directly, not what later layers make of it. "none" means that the layer has no such part.
"""
DECIMALS = 2
LEAST_WATERFALL, WITH_SUM = 30, 44  # cells; those from which on the sum so far has a column
SHORT = {"embedding": "embed.", "other": "other", "bias": "biases", "rest": "rest"}
NUMBER = 7
LEAST_BAR = 3  # cells; where there are fewer, the number stands alone
NAMES = {"embedding": "embedding", "other": "other", "bias": "biases", "rest": "rest"}
NAMED = 44  # cells from which on the upper edge has room for the names of the columns

pick = pick_layer


@dataclass(frozen=True, kw_only=True)
class AttributionData(LayerData):
    """`missing` holds also why a layer's parts are lost in a layer above it."""

    mode: str
    sum: Sum | None
    is_difference: bool  # of two candidates, or from what the user pinned
    minus: str  # what was pinned and subtracted, for the lower edge; "" for nothing
    not_comparable: bool  # a candidate is selected that was not attributed
    nowhere: bool  # this model has no attribution at all, for example because its head is not linear
    rivals: tuple[Rival, ...] = ()  # the most likely tokens


def data(view: View) -> AttributionData:
    step, shown = view.step, None
    selected = None if step is None else _selected(view, step)
    place = None if step is None or selected is None else _place(step, selected)
    if step is not None and "attribution" in step.values:
        shown = sum_of(view, step, place)
    pinned = view.reference if place is None else None
    if shown is not None and pinned is not None and has_parts(pinned, shown):
        shown = less(shown, sum_of(view, pinned, None), minus(view))
    else:
        pinned = None
    own = missing_of(view, "attribution")
    return AttributionData(
        empty=why_empty(view, shown is not None),
        layers=view.layers,
        layer=view.layer,
        missing=own if step is None or shown is None else _missing(view, step, own),
        mode=view.mode("attribution", MODES),
        sum=shown,
        is_difference=place is not None or pinned is not None,
        minus=minus(view) if pinned is not None else "",
        not_comparable=selected is not None and place is None,
        nowhere=shown is not None and not math.isfinite(shown.logit) and all(why is not None for why in own),
        rivals=() if step is None or pinned is not None else rivals_of(step),  # not beside differences from another token
    )


def _selected(view: View, step: Step) -> int | None:
    """The id of the selected candidate, where it is not the chosen one."""
    if view.candidate is None or not 0 <= view.candidate < len(step.candidates):
        return None
    token_id = int(step.candidates.token_ids[view.candidate])
    return None if token_id == step.token_id else token_id


def _place(step: Step, token_id: int) -> int | None:
    """The index of a token among those whose logits were attributed."""
    ids = step.values.get("attribution.top.token_ids")
    known = [] if ids is None else ids.tolist()
    return known.index(token_id) if token_id in known else None


def _missing(view: View, step: Step, own: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Why a layer's parts may be missing: it has none, or a layer above it hides what becomes of them; None where they should be there."""
    hidden = hiding(step.values["attribution"], view.info.missing.get("attribution", {}) if view.info else ())

    def why(layer: int) -> str | None:
        above = next((above for above in hidden if above > layer), None)
        return own[layer] or (None if above is None else f"lost in layer {above}")

    return tuple(why(layer) for layer in range(view.layers))


def heading(data: AttributionData, box: Box) -> str:
    if data.sum is None:
        return TITLE
    to, short = f"Attribution to {data.sum.of}", fit(data.sum.of, max(1, box.width)).rstrip()
    columns = [] if _is_waterfall(data, data.sum, box.width) else [f"{to} · attention | MLP, logits"]
    return fitting([*columns, to, TITLE, short], box.width)


def legend(data: AttributionData, box: Box) -> Line | None:
    """The headings of the waterfall's columns."""
    if data.sum is None or data.empty is not None or not _is_waterfall(data, data.sum, box.width):
        return None
    columns = f"{'attn.':>{NUMBER}}{'MLP':>{NUMBER}}" + f"{'sum':>{NUMBER}}" * (box.width - gutter_width(data, box) >= WITH_SUM)
    return [Segment(columns.lstrip(), ink(box.palette, "secondary"))]


def note(data: AttributionData, box: Box) -> str:
    shown, parts = data.sum, [hidden_note(data, box)]
    if shown is None or data.nowhere:
        return parts[0]
    if box.width < NAMED:
        parts.append("attn. | MLP")
    if not _has_foot(data, shown, box):
        what = "difference" if data.is_difference else "logit"
        parts.append(f"sum {number_text(shown.explained, DECIMALS)} = {what} {number_text(shown.logit, DECIMALS)}{_off(shown)}")
        parts += [f"embedding {_whole(shown, shown.embedding)}", f"biases {_whole(shown, shown.bias)}"]
    parts.append(data.minus)
    if data.not_comparable:
        parts.insert(0, "no comparison: not among the ten most likely")
    return " · ".join(part for part in parts if part)


def _whole(shown: Sum, value: float) -> str:
    """A number of the whole sum; "none" where it can't be told apart from the rest though the logit is known."""
    return "none" if math.isnan(value) and math.isfinite(shown.logit) else signed(value, DECIMALS)


def _off(shown: Sum) -> str:
    """How far the sum is from the logit, where one sees it."""
    return "" if abs(shown.rest) < 0.5 * 10**-DECIMALS else f" less {number_text(shown.rest, DECIMALS)} not explained"


def _has_foot(data: AttributionData, shown: Sum, box: Box) -> bool:
    return box.height >= data.layers + len(shown.below) + 1 and not data.nowhere


def render(data: AttributionData, box: Box) -> list[Line]:
    shown = data.sum
    if data.empty is not None or shown is None:
        return message(box, data.empty or "")
    if _is_waterfall(data, shown, box.width):
        return _with_rivals(data, box, _waterfall(data, shown, box))
    every = np.concatenate([shown.parts.ravel(), [value for _, value in shown.below]])
    lengths = signed_shares(every, box.scale)
    layered = lengths[: shown.parts.size].reshape(shown.parts.shape)

    def cell(layer: int, width: int) -> Line:
        half = width // 2
        line = _part(data, box, layer, float(shown.parts[layer, 0]), float(layered[layer, 0]), half)
        return [*line, *_part(data, box, layer, float(shown.parts[layer, 1]), float(layered[layer, 1]), width - half)]

    lines = layer_lines(data, box, cell)
    foot = _foot(data, shown, lengths[shown.parts.size :], box) if _has_foot(data, shown, box) else []
    return _with_rivals(data, box, that_fit(box, [*lines, *foot]))


def _with_rivals(data: AttributionData, box: Box, lines: list[Line]) -> list[Line]:
    """The lines, and the most likely tokens in the rows below them."""
    left = gutter_width(data, box)
    return [*lines, *([Segment(" " * left), *line] for line in rival_lines(data.rivals, box, box.width - left, box.height - len(lines)))]


def _is_waterfall(data: AttributionData, shown: Sum, width: int) -> bool:
    """Whether the parts are drawn as a waterfall: all of them are known, and there is room."""
    known = np.isfinite([*shown.parts.ravel(), *(value for _, value in shown.below), shown.logit]).all()
    return data.mode == "waterfall" and bool(known) and width >= LEAST_WATERFALL


def _waterfall(data: AttributionData, shown: Sum, box: Box) -> list[Line]:
    """A row a layer: the bar from the sum of all below to the sum with it, what attention and MLP add, and that sum."""
    sums = np.cumsum([0.0, *(value for _, value in reversed(shown.below)), *shown.parts.sum(axis=1)])
    first = len(shown.below)  # of the sums, the one before layer 0
    low, high = float(sums.min()), float(sums.max())
    width = box.width - gutter_width(data, box)
    numbers = NUMBER * (3 if width >= WITH_SUM else 2)
    room = box.longest(width - numbers - 1)
    quiet, gutter = ink(box.palette, "secondary"), Segment(" " * gutter_width(data, box))

    def row(at: int, texts: tuple[str, str], style: Style) -> Line:
        """The bar from one sum to the next, two texts, and the sum."""
        start, end = ((float(sums[one]) - low) / (high - low or 1.0) * room for one in (at, at + 1))
        line = [*floating_bar(box.palette, start, end, room), Segment(" " * (width - numbers - room))]
        line.append(Segment("".join(text.rjust(NUMBER) for text in texts), style))
        return [*line, Segment(number_text(float(sums[at + 1]), DECIMALS).rjust(NUMBER), quiet)] if width >= WITH_SUM else line

    def cell(layer: int, _: int) -> Line:
        attention, mlp = (signed(float(value), DECIMALS) for value in shown.parts[layer])
        return row(first + layer, (attention, mlp), ink(box.palette, "text", bold=layer == data.layer))

    lines = layer_lines(data, box, cell)
    if not _has_foot(data, shown, box):
        return lines
    for at, (name, value) in enumerate(shown.below):
        lines.append([gutter, *row(first - 1 - at, (SHORT[name], signed(value, DECIMALS)), quiet)])
    last = f" = {'difference' if data.is_difference else 'logit'} {number_text(shown.logit, DECIMALS)}"
    axis = fit(_axis(low, high, room, shown.logit), max(0, width - len(last)))
    return [*lines, [gutter, Segment(axis, quiet), Segment(fit(last, width - len(axis), ">"), ink(box.palette, "text", bold=True))]]


def _axis(low: float, high: float, room: int, logit: float) -> str:
    """Where the bars begin, at 0, and where they end, in `room` cells; only the end where both are too near."""
    start, end = (round((value - low) / (high - low or 1.0) * (room - 1)) for value in (0.0, logit))
    name = number_text(logit, DECIMALS)
    first = max(0, min(end - len(name) + 1, room - len(name)))
    marks = sorted([(start, "0"), (first, name)]) if abs(start - first) > len(name) else [(first, name)]
    text = ""
    for at, mark in marks:
        text = text.ljust(at) + mark
    return text


def _part(data: AttributionData, box: Box, layer: int, value: float, share: float, width: int) -> Line:
    """One bar around 0 and its number."""
    why, selected = data.missing[layer], layer == data.layer
    if not math.isfinite(value):
        text = f"none: {why}" if why is not None else f"! {number_text(value, 0)}"
        style = ink(box.palette, "secondary" if why is not None else "warning", bold=why is None)
        return [Segment(fit(text, width), style)] if why is None or width >= 14 else [Segment(fit("none", width, ">"), style)]
    if width < NUMBER + LEAST_BAR + 1:
        return [Segment(f"{signed(value, DECIMALS):>{max(0, width - 1)}} ", ink(box.palette, "text", bold=selected))]
    return [*_bar(box, value, share, width, bold=selected), Segment(" ")]


def _bar(box: Box, value: float, share: float, width: int, bold: bool = False, text: str = "") -> Line:
    """A bar and its number, or a text instead, in all but one of `width` cells; no bar for what reads as 0."""
    shown = share if abs(value) >= 0.5 * 10**-DECIMALS else 0.0
    bars = diverging_bar(box.palette, shown, max(0, width - NUMBER - 1), box.max_bar_length)
    return [*bars, Segment((text or signed(value, DECIMALS)).rjust(NUMBER), ink(box.palette, "text", bold=bold))]


def _foot(data: AttributionData, shown: Sum, lengths: NDArray[np.float64], box: Box) -> list[Line]:
    """Rows for what no layer added, and the sum beside the logit."""
    quiet, gutter = ink(box.palette, "secondary"), gutter_width(data, box)
    width = box.width - gutter
    half, label = width // 2, max(0, min(11, width - width // 2 - 2))
    lines: list[Line] = []
    for (name, value), share in zip(shown.below, lengths, strict=True):
        bars = _bar(box, value, float(share), half, text=_whole(shown, value))
        lines.append([Segment(" " * gutter), *bars, Segment(f"  {fit(fitting([NAMES[name], SHORT[name]], label), label)}", quiet)])
    total = number_text(shown.explained + shown.rest, DECIMALS).rjust(max(0, half - 1))
    end = number_text(shown.logit, DECIMALS)
    row = fitting([f"{total}  = logit {end}", f"{total} = {end}", total], width)
    return [*lines, [Segment(" " * gutter), Segment(fit(row, width), ink(box.palette, "text", bold=True))]]
