"""Neurons: the strongest neurons of the selected layer, and the tokens that each one raises and lowers through the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, number_text, one_line, visible
from openmav.panels._diverging import diverging_bar, signed, signed_shares
from openmav.panels._layers import not_captured, too_narrow, waiting
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Neurons"
NEEDS = ("neurons", "neuron_tokens")
ROWS = 24
FOCUS = True
HELP = """\
What it shows: the neurons of the selected layer's MLP that fired most strongly for this token, strongest first: the neuron's
number (#), its activation as a bar around 0 and a number, then the tokens whose logits it raises most (▲) and those that it
lowers most (▼), each with by how much where there is room. Choose the layer with [ and ].

How to read it: an MLP can be read as a memory: a neuron fires on a pattern in the text and then pushes some tokens up and
others down. Look for a neuron whose raised tokens belong together, and see whether it fires again when the text comes back
to that topic. Negative activations turn raising into lowering; that is counted in already.

Formula: logit change = activation * (column of the MLP's last linear map) through the final norm, its scale held at its value
here, and the head's row of the token. It is the neuron's direct effect; what later layers make of it is not counted.

Source: Geva et al., "Transformer Feed-Forward Layers Are Key-Value Memories" (2021) and "... Build Predictions by Promoting
Concepts in the Vocabulary Space" (2022).

What is normal: in late layers many neurons raise words that a reader would group; in early layers the tokens look random,
because other layers read what they write. A mixture of experts has no such neurons here: see the router.
"""
ID, VALUE = 7, 8
MOST_BAR = 49  # cells of a bar that has a line of its own
LEAST_TOKENS = 24  # cells of the tokens beside the neuron; where there are fewer, they stand below it
LEAST = ID + VALUE  # cells; where there are fewer, numbers would have to be cut


Tokens: TypeAlias = tuple[tuple[str, float], ...]  # each with the change of its logit


@dataclass(frozen=True)
class Neuron:
    """A neuron of the layer: its number, activation, and what it raises and lowers; None where that is not known."""

    number: int
    value: float
    raises: Tokens | None = None
    lowers: Tokens | None = None


def neurons_of(view: View, step: Step) -> list[Neuron]:
    """The selected layer's neurons, strongest first."""
    values, ids = step.values.get("neurons"), step.values.get("neurons.ids")
    if values is None or ids is None or not 0 <= view.layer < len(values):
        return []
    at = _place(step, view.layer)
    found = []
    for row, (neuron, value) in enumerate(zip(ids[view.layer], values[view.layer])):
        if neuron >= 0:
            raises = lowers = None
            if at is not None:
                raises, lowers = _tokens(step, at, row, 0), _tokens(step, at, row, 1)
            found.append(Neuron(int(neuron), float(value), raises, lowers))
    return found


def _place(step: Step, layer: int) -> int | None:
    """The entry of a layer in "neuron_tokens"; None where it was not computed."""
    layers = [int(one) for one in step.values.get("neuron_tokens.layers", ())]
    return layers.index(layer) if layer in layers else None


def _tokens(step: Step, at: int, row: int, way: int) -> Tokens:
    ids: NDArray = step.values["neuron_tokens.token_ids"][at, row, way]
    moved: NDArray = step.values["neuron_tokens"][at, row, way]
    return tuple((step.pieces.get(int(token), f"#{token}"), float(logit)) for token, logit in zip(ids, moved) if token >= 0)


def heading(view: View, width: int) -> str:
    return f"Neurons · layer {view.layer}" if view.layers else "Neurons"


def _why_no_tokens(view: View, step: Step) -> str:
    """Why the tokens of the selected layer are not there; "" where they are."""
    if _place(step, view.layer) is not None:
        return ""
    why = view.why_missing("neuron_tokens", view.layer)
    return one_line(why) if why else "no tokens: another layer was selected when this token was made"


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    found = neurons_of(view, view.step)
    each = _rows_each(width, height, found)
    hidden = len(found) - _count(height, each)
    parts = [f"{hidden} of {len(found)} neurons more" if found and hidden > 0 else "", _why_no_tokens(view, view.step) if found else ""]
    return " · ".join(part for part in (*parts, f"logit changes of token {view.cursor}" if found else "") if part)


def _rows_each(width: int, height: int, found: list[Neuron]) -> int:
    """Lines of a neuron: one more for what it raises and one for what it lowers, where that does not fit beside it or all have the room."""
    if not found or found[0].raises is None:
        return 1
    return 3 if width < ID + VALUE + 2 * LEAST_TOKENS + 12 or height >= 3 * len(found) else 1


def _count(height: int, each: int) -> int:
    """Neurons that fit in so many lines; the first is never left out."""
    return max(1, height // each)


def render(view: View, width: int, height: int) -> list[Line]:
    step = view.step
    if step is None or view.layers == 0:
        return waiting(view, width)
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    if "neurons" not in step.values:
        return not_captured(view, width)
    found = neurons_of(view, step)
    if not found:
        why = view.why_missing("neurons", view.layer)
        return [[Segment(fit(f"none: {one_line(why)}" if why else "none in this layer", width), ink(view.palette, "secondary"))]]
    lengths = signed_shares([neuron.value for neuron in found], view.options.scale)
    each = _rows_each(width, height, found)
    lines: list[Line] = []
    for neuron, share in list(zip(found, lengths))[: _count(height, each)]:
        lines += _beside(view, neuron, float(share), width) if each == 1 else _below(view, neuron, float(share), width)
    return lines[: max(height, 0)]


def _start(view: View, neuron: Neuron, share: float, room: int) -> Line:
    """`#1234 ███│ +3.21` with a bar of `room` cells."""
    good = bool(np.isfinite(neuron.value))
    shown = signed(neuron.value, 2) if good else f"! {number_text(neuron.value, 0)}"
    return [
        Segment(f"{f'#{neuron.number}':<{ID}}", ink(view.palette, "secondary")),
        *diverging_bar(view.palette, share, room, view.options.max_bar_length),
        Segment(shown.rjust(VALUE), ink(view.palette, "text" if good else "warning", bold=not good)),
    ]


def _beside(view: View, neuron: Neuron, share: float, width: int) -> list[Line]:
    bars = max(9, min(25, width // 8))
    room = (width - ID - bars - VALUE - 2) // 2
    raises, lowers = _way(view, "▲", neuron.raises, room - 1), _way(view, "▼", neuron.lowers, room)
    return [[*_start(view, neuron, share, bars), Segment("  "), *raises, Segment(" "), *lowers]]


def _below(view: View, neuron: Neuron, share: float, width: int) -> list[Line]:
    start = _start(view, neuron, share, max(0, min(width - ID - VALUE, MOST_BAR)))
    ways = (("▲", neuron.raises), ("▼", neuron.lowers))
    return [start, *([Segment("  "), *_way(view, mark, tokens, max(0, width - 2))] for mark, tokens in ways if tokens is not None)]


def _way(view: View, mark: str, tokens: Tokens | None, room: int) -> Line:
    """`▲ ·Paris +0.82 ·London +0.51` in `room` cells: whole tokens, the strongest first, which alone is cut; blank where none are known."""
    if tokens is None:
        return [Segment(" " * room)]
    quiet, colours = ink(view.palette, "secondary"), view.palette.diverging
    colour = (colours[-1] if mark == "▲" else colours[0]) or "text"
    line: Line = [Segment(mark, ink(view.palette, colour))]
    left = room - 1
    for at, (token, logit) in enumerate(tokens):
        name, moved = visible(token), f" {signed(logit, 2)}"
        if cells(name) + len(moved) + 1 > left:
            if at == 0:  # never none of them
                line.append(Segment(fit(f" {name}", left), ink(view.palette, "text")))
                left = 0
            break
        line += [Segment(f" {name}", ink(view.palette, "text")), Segment(moved, quiet)]
        left -= cells(name) + len(moved) + 1
    if not tokens:
        line, left = [Segment(fit(f"{mark} none", room), quiet)], 0
    return [*line, Segment(" " * max(0, left))]
