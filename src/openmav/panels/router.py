"""Router: which experts each mixture-of-experts layer chose, and with what weight."""

from __future__ import annotations

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number, number_text, one_line
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, pick_layer, waiting
from openmav.panels._view import View

TITLE = "Router"
NEEDS = ("router",)
LAYERS = True
WEIGHT = 1.3
HELP = """\
What it shows: for models that are a mixture of experts, one row a layer, the highest on top: the experts that the layer's
router chose for this token, each with its number (in #), the weight that its output gets, and a bar. The strongest stands
on the left.

How to read it: an expert is one of many small MLPs of the layer; only the chosen ones run. One long bar means that one
expert does nearly all of the work; even bars mean that several share it. Walk through the tokens and see which experts come
back for the same kind of token.

Formula: the weights that the router gives to the outputs of its top k experts, as the model itself computed them; whether
they sum to 1 is the model's own affair (some scale them).

Source: Shazeer et al., "Outrageously Large Neural Networks" (2017); Fedus et al., "Switch Transformers" (2021).

What is normal: two to eight experts a token; over many tokens all experts of a well-trained layer take part. A model
without experts has no router, and some models have layers without one: they say "none".
"""
LEAST = 9  # cells of an expert: number and weight
pick = pick_layer


def heading(view: View, width: int) -> str:
    return "Router · experts and their weights" if width >= 36 else "Router"


def absent(view: View) -> bool:
    """Whether no layer of the model has a router."""
    return view.layers > 0 and all(view.why_missing("router", layer) is not None for layer in range(view.layers))


def _fit(view: View, width: int, experts: int) -> int:
    """How many experts a row has room for."""
    return max(1, min(experts, (width - gutter_width(view)) // LEAST))


def note(view: View, width: int, height: int) -> str:
    values = view.values("router")
    if values is None or absent(view):
        return ""
    experts = values.shape[1]
    parts = [hidden_note(view, 0 if width < 48 else width, height) if view.gutter else ""]
    parts += [f"{_fit(view, width, experts)} of {experts} experts"] if _fit(view, width, experts) < experts else []
    rows = [layer for layer in range(view.layers) if np.isfinite(values[layer]).any()]
    if 0 <= view.layer < view.layers and view.layer in rows:
        parts.append(f"layer {view.layer}: weights sum to {number_text(float(np.nansum(values[view.layer])), 2)}")
    return " · ".join(part for part in parts if part)


def render(view: View, width: int, height: int) -> list[Line]:
    values, ids = view.values("router"), view.values("router.ids")
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if absent(view):
        return [[Segment(fit("no router in this model", width), ink(view.palette, "secondary"))]]
    if values is None or ids is None:
        return not_captured(view, width)
    finite = values[np.isfinite(values)]
    top, count = float(finite.max(initial=0.0)), _fit(view, width, values.shape[1])

    def cell(layer: int, room: int) -> Line:
        why = view.why_missing("router", layer)
        if why is not None and not np.isfinite(values[layer]).any():
            text = one_line(why) if room >= 24 else ""
            return [Segment(fit(text, max(0, room - 5)) + " none"[:room], ink(view.palette, "secondary"))]
        each = room // count
        line: Line = []
        for expert, weight in list(zip(ids[layer], values[layer]))[:count]:
            line += _expert(view, int(expert), float(weight), top, each, layer == view.layer)
        return line

    return layer_lines(view, width, height, cell)


def _expert(view: View, expert: int, weight: float, top: float, room: int, chosen: bool) -> Line:
    """`#17 0.61 ███▌` in `room` cells; blank where the layer chose fewer."""
    if expert < 0:
        return [Segment(" " * room)]
    bar_room = max(0, room - LEAST - 1)
    longest = min(bar_room, view.options.max_bar_length or bar_room)
    share = weight / top if top > 0 and np.isfinite(weight) else 0.0
    shown = bar(max(share, 0.0), longest)
    role = "text" if np.isfinite(weight) else "warning"
    return [
        Segment(f"{f'#{expert}':>4}", ink(view.palette, "secondary")),
        Segment(number(weight, 2, 5), ink(view.palette, role, bold=chosen)),
        Segment(" " * min(1, bar_room) + shown, ink(view.palette, "mlp")),
        Segment(" " * (room - LEAST - min(1, bar_room) - len(shown))),
    ]
