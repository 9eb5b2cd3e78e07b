"""Attribution: what each layer's attention and MLP adds to the logit of the chosen token, or to its lead over another one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.finite import hiding
from openmav.paint import Line, fit, ink, number_text, one_line, visible
from openmav.panels._diverging import diverging_bar, signed, signed_shares
from openmav.panels._grid import fitting
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, pick_layer, that_fit, waiting
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Attribution"
NEEDS = ("attribution",)
LAYERS = True
WEIGHT = 1.6
FOOT = 4
HELP = """\
What it shows: one row a layer, the highest layer on top, with two bars around 0: what the layer's attention (left) and its
MLP (right) add to the logit of the chosen token. Orange to the right raises it, blue to the left lowers it. Below the
layers, or on the lower edge, stand the rest of the sum: the embedding, the biases, and what is not explained.

How to read it: long orange bars show which layers speak for this token. The numbers add up to the logit: the sum and the
model's own logit stand beside each other. Select another candidate (up and down keys): then all numbers are the chosen
token's minus that one's, and say which layers decided between the two. All bars have one scale.

Formula: (what the sub-block adds to the residual stream) . (direction of the token's logit), with the scale of the final
norm held at its value here; in logits. A minus B: the difference of the two, which is unaffected by what raises all
logits alike. --scale log draws the bars as ln(1 + |v|); the numbers stay.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), direct logit attribution. Of two
candidates, both must be among the ten likeliest, or chosen.

What is normal: most parts near 0, a few late layers with several logits, some strongly negative. An early layer counts
only what it adds directly, not what later layers make of it. "none" means that the layer has no such part.
"""
NUMBER = 7
DECIMALS = 2
LEAST_BAR = 3  # cells; where there are fewer, the number stands alone
PARTS = ("embedding", "bias", "rest")
COLUMNS = ("attention", "MLP")

pick = pick_layer


class Sum(NamedTuple):
    """What is drawn: the parts of one logit, or of the difference of two."""

    parts: NDArray[np.float64]  # [layers, 2], logits
    embedding: float
    bias: float
    rest: float
    logit: float
    of: str  # the token, or "A minus B"
    hiding: list[int]  # layers whose own parts are not known

    @property
    def explained(self) -> float:
        """All parts that are known."""
        return float(np.nansum(self.parts) + np.nan_to_num(self.embedding)) + self.bias


def _rival(view: View, step: Step) -> int | None:
    """The id of the selected candidate, where it is not the chosen one."""
    if view.candidate is None or not 0 <= view.candidate < len(step.candidates):
        return None
    token_id = int(step.candidates.token_ids[view.candidate])
    return None if token_id == step.token_id else token_id


def _place(step: Step, token_id: int) -> int | None:
    """Where a token stands among those whose logits were attributed."""
    ids = step.values.get("attribution.top.token_ids")
    found = [] if ids is None else ids.tolist()
    return found.index(token_id) if token_id in found else None


def sum_of(view: View) -> Sum | None:
    """The parts of the shown step; None where they were not computed."""
    step = view.step
    parts = step.values.get("attribution") if step is not None else None
    if step is None or parts is None:
        return None
    whole = [float(step.values[f"attribution.{name}"][0]) for name in (*PARTS, "logit")]
    name, rival = visible(step.token), _rival(view, step)
    place = _place(step, rival) if rival is not None else None
    drawn = parts.astype(np.float64)
    if rival is not None and place is not None:
        drawn = drawn - step.values["attribution.top"][:, :, place]
        whole = [value - float(step.values[f"attribution.top.{part}"][0, place]) for value, part in zip(whole, (*PARTS, "logit"))]
        name = f"{name} minus {visible(step.candidates.tokens[view.candidate or 0])}"
    hidden = hiding(parts, view.info.missing.get("attribution", {}) if view.info else ())
    return Sum(drawn, whole[0], whole[1], whole[2], whole[3], name, hidden)


def heading(view: View, width: int) -> str:
    found = sum_of(view)
    if found is None:
        return TITLE
    return fitting([f"Attribution to {found.of} · attention | MLP, logits", f"Attribution to {found.of}", TITLE], width)


def note(view: View, width: int, height: int) -> str:
    found, step = sum_of(view), view.step
    parts = [hidden_note(view, width, height) if view.gutter else ""]
    if found is None or step is None or _nowhere(view, found):
        return parts[0]
    what = "difference" if " minus " in found.of and _rival(view, step) is not None else "logit"
    parts.append(f"sum {number_text(found.explained, DECIMALS)} = {what} {number_text(found.logit, DECIMALS)}{_off(found)}")
    if not _has_foot(view, found, height):
        parts += [f"embedding {_whole(found, found.embedding)}", f"biases {_whole(found, found.bias)}"]
    rival = _rival(view, step)
    if rival is not None and _place(step, rival) is None:
        parts.insert(0, "no comparison: not among the ten likeliest")
    return " · ".join(part for part in parts if part)


def _whole(found: Sum, value: float) -> str:
    """A number of the whole sum; "none" where it can't be told apart from the rest though the logit is known."""
    return "none" if math.isnan(value) and math.isfinite(found.logit) else signed(value, DECIMALS)


def _off(found: Sum) -> str:
    """How far the sum is from the logit, where one sees it."""
    return "" if abs(found.rest) < 0.5 * 10**-DECIMALS else f" less {number_text(found.rest, DECIMALS)} not explained"


def _nowhere(view: View, found: Sum) -> bool:
    """Whether this model has no attribution at all, such as one whose head is not linear."""
    return not math.isfinite(found.logit) and all(view.why_missing("attribution", layer) is not None for layer in range(view.layers))


def _has_foot(view: View, found: Sum, height: int) -> bool:
    return height >= view.layers + len(PARTS) + 1 and not _nowhere(view, found)


def render(view: View, width: int, height: int) -> list[Line]:
    found = sum_of(view)
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if found is None:
        return not_captured(view, width)
    room = width - gutter_width(view)
    every = np.concatenate([found.parts.ravel(), [found.embedding, found.bias, found.rest]])
    lengths = signed_shares(every, view.options.scale)
    layered = lengths[: found.parts.size].reshape(found.parts.shape)

    def cell(layer: int, space: int) -> Line:
        half = space // 2
        why = _why(view, found, layer)
        line = _part(view, layer, why, float(found.parts[layer, 0]), float(layered[layer, 0]), half)
        return [*line, *_part(view, layer, why, float(found.parts[layer, 1]), float(layered[layer, 1]), space - half)]

    lines = layer_lines(view, width, height, cell)
    foot = _foot(view, found, lengths[found.parts.size :], room) if _has_foot(view, found, height) else []
    return that_fit(view, width, [*lines, *foot])


def _why(view: View, found: Sum, layer: int) -> str | None:
    """Why a layer's parts may be missing: it has none, or a layer above it hides what becomes of them; None where they should be there."""
    own = view.why_missing("attribution", layer)
    if own is not None:
        return own
    hidden = next((above for above in found.hiding if above > layer), None)
    return None if hidden is None else f"lost in layer {hidden}"


def _part(view: View, layer: int, why: str | None, value: float, share: float, room: int) -> Line:
    """One bar around 0 and its number."""
    if not math.isfinite(value):
        text = f"none: {one_line(why)}" if why is not None else f"! {number_text(value, 0)}"
        style = ink(view.palette, "secondary" if why is not None else "warning", bold=why is None)
        return [Segment(fit(text, room), style)] if why is None or room >= 14 else [Segment(fit("none", room, ">"), style)]
    if room < NUMBER + LEAST_BAR + 1:
        return [Segment(f"{signed(value, DECIMALS):>{max(0, room - 1)}} ", ink(view.palette, "text", bold=layer == view.layer))]
    return [*_bar(view, value, share, room, bold=layer == view.layer), Segment(" ")]


def _bar(view: View, value: float, share: float, room: int, bold: bool = False, text: str = "") -> Line:
    """A bar and its number, or a text instead, in all but one of `room` cells; no bar for what reads as 0."""
    shown = share if abs(value) >= 0.5 * 10**-DECIMALS else 0.0
    bars = diverging_bar(view.palette, shown, max(0, room - NUMBER - 1), view.options.max_bar_length)
    return [*bars, Segment((text or signed(value, DECIMALS)).rjust(NUMBER), ink(view.palette, "text", bold=bold))]


def _foot(view: View, found: Sum, lengths: NDArray[np.float64], room: int) -> list[Line]:
    """Rows for what no layer added, and the sum beside the logit."""
    quiet, gutter = ink(view.palette, "secondary"), gutter_width(view)
    half, label = room // 2, max(0, min(11, room - room // 2 - 2))
    lines: list[Line] = []
    for name, value, share in zip(("embedding", "biases", "rest"), (found.embedding, found.bias, found.rest), lengths):
        bars = _bar(view, value, float(share), half, text=_whole(found, value))
        lines.append([Segment(" " * gutter), *bars, Segment(f"  {fit(name, label)}", quiet)])
    total = number_text(found.explained + found.rest, DECIMALS).rjust(max(0, half - 1))
    end = number_text(found.logit, DECIMALS)
    row = fitting([f"{total}  = logit {end}", f"{total} = {end}", total], room)
    return [*lines, [Segment(" " * gutter), Segment(fit(row, room), ink(view.palette, "text", bold=True))]]
