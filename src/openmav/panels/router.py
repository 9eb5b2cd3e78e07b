"""Router: which experts each mixture-of-experts layer chose, and with what weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number, number_text
from openmav.panels.base import Box
from openmav.panels.widgets.layer_rows import (
    LayerData,
    gutter_width,
    hidden_note,
    layer_lines,
    message,
    missing_of,
    not_captured,
    pick_layer,
    why_no_layers,
)
from openmav.record import Array, Ids
from openmav.view import View

TITLE = "Router"
NEEDS = ("router",)
LAYERS = True
WEIGHT = 1.3
HELP = """\
What it shows: for models that are a mixture of experts, one row a layer, the highest on top: the experts that the layer's
router selected for this token, each with its number (in #), the weight that its output gets, and a bar. The strongest is
on the left.

How to read it: an expert is one of many small MLPs of the layer; only the selected ones run. One long bar means that one
expert does nearly all of the work; even bars mean that several share it. Walk through the tokens and see which experts come
back for the same kind of token.

Formula: the weights that the router gives to the outputs of its top k experts, as the model itself computed them; whether
they sum to 1 depends on the model (some scale them).

Source: Shazeer et al., "Outrageously Large Neural Networks" (2017); Fedus et al., "Switch Transformers" (2021).

What is normal: two to eight experts a token; over many tokens all experts of a well-trained layer take part. A model
without experts has no router, and some models have layers without one: they say "none".
"""
LEAST = 9  # cells of an expert: number and weight
pick = pick_layer


@dataclass(frozen=True, kw_only=True)
class RouterData(LayerData):
    weights: Array | None  # [layers, k], strongest first; NaN where a layer selected fewer
    experts: Ids | None  # [layers, k], -1 where a layer selected fewer
    absent: bool  # no layer of the model has a router


def data(view: View) -> RouterData:
    weights, experts = view.values("router"), view.values("router.ids")
    missing, none = missing_of(view, "router"), why_no_layers(view)
    absent = view.layers > 0 and all(why is not None for why in missing)
    captured = none if none is not None or (weights is not None and experts is not None) else not_captured(view)
    return RouterData(
        empty="no router in this model" if absent and none is None else captured,
        layers=view.layers,
        layer=view.layer,
        missing=missing,
        absent=absent,
        weights=weights,
        experts=None if experts is None else experts.astype(np.int64),
    )


def heading(data: RouterData, box: Box) -> str:
    return "Router · experts and their weights" if box.width >= 36 else "Router"


def _count(data: RouterData, box: Box, experts: int) -> int:
    """How many experts fit in a row."""
    return max(1, min(experts, (box.width - gutter_width(data, box)) // LEAST))


def note(data: RouterData, box: Box) -> str:
    weights = data.weights
    if weights is None or data.absent:
        return ""
    experts = weights.shape[1]
    count = _count(data, box, experts)
    parts = [hidden_note(data, box, box.width < 48), f"{count} of {experts} experts" if count < experts else ""]
    if 0 <= data.layer < data.layers and np.isfinite(weights[data.layer]).any():
        parts.append(f"layer {data.layer}: weights sum to {number_text(float(np.nansum(weights[data.layer])), 2)}")
    return " · ".join(part for part in parts if part)


def render(data: RouterData, box: Box) -> list[Line]:
    weights, experts = data.weights, data.experts
    if data.empty is not None or weights is None or experts is None:
        return message(box, data.empty or "")
    finite = weights[np.isfinite(weights)]
    top, count = float(finite.max(initial=0.0)), _count(data, box, weights.shape[1])

    def cell(layer: int, width: int) -> Line:
        why = data.missing[layer]
        if why is not None and not np.isfinite(weights[layer]).any():
            return [Segment(fit(why if width >= 24 else "", max(0, width - 5)) + " none"[:width], ink(box.palette, "secondary"))]
        line: Line = []
        for expert, weight in list(zip(experts[layer], weights[layer]))[:count]:
            line += _expert(box, int(expert), float(weight), top, width // count, layer == data.layer)
        return line

    return layer_lines(data, box, cell)


def _expert(box: Box, expert: int, weight: float, top: float, width: int, selected: bool) -> Line:
    """`#17 0.61 ███▌` in `width` cells; blank where the layer selected fewer."""
    if expert < 0:
        return [Segment(" " * width)]
    bar_width = max(0, width - LEAST - 1)
    share = weight / top if top > 0 and np.isfinite(weight) else 0.0
    shown = bar(max(share, 0.0), box.longest(bar_width))
    role = "text" if np.isfinite(weight) else "warning"
    return [
        Segment(f"{f'#{expert}':>4}", ink(box.palette, "secondary")),
        Segment(number(weight, 2, 5) if np.isfinite(weight) else f"!{number_text(weight, 0):>4}", ink(box.palette, role, bold=selected)),
        Segment(" " * min(1, bar_width) + shown, ink(box.palette, "mlp")),
        Segment(" " * (width - LEAST - min(1, bar_width) - len(shown))),
    ]
