"""Neurons: the strongest neurons of the selected layer, and the tokens that each one raises and lowers through the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, line_width, number_text, one_line, readable, visible
from openmav.panels.base import Box
from openmav.panels.widgets.diverging import diverging_bar, signed, signed_shares
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import not_captured, nothing_to_show, why_no_layers
from openmav.record import Step
from openmav.view import Selection, View

TITLE = "Neurons"
NEEDS = ("neurons", "neuron_tokens")
FOCUS = True
HELP = """\
What it shows: the neurons of the selected layer's MLP that fired most strongly for this token, strongest first: the
neuron's number (#), its activation as a bar around 0 and a number, then the tokens whose logits it raises most (▲) and
those that it lowers most (▼), each with by how much where there is room. Choose the layer with [ and ]. Below, where there
is room, the strongest neurons of every layer: orange for positive activations, blue for negative ones.

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
NAME, CHANGE, MOST_NAME, LEAST_NAME = 9, 6, 14, 6  # cells of a token in its column, of its number; of a token at most, of two at least
LEAST_TOKENS = 24  # cells of the tokens beside the neuron; where there are fewer, they stand below it
CELL, LEAST_LAYERS = 15, 4  # cells of a neuron in the grid of all layers; rows that the grid needs
LEAST = ID + VALUE  # cells; where there are fewer, numbers would have to be cut


Tokens: TypeAlias = tuple[tuple[str, float], ...]  # each with the change of its logit


@dataclass(frozen=True)
class Neuron:
    """A neuron of the layer: its number, activation, and what it raises and lowers; None where that is not known."""

    number: int
    value: float
    raises: Tokens | None = None
    lowers: Tokens | None = None


def rows(view: View) -> int | None:
    """A line for each neuron of the selected layer, and the grid of all layers below them; None where they are not known yet."""
    ids = view.values("neurons.ids")
    return None if ids is None else ids.shape[1] + 2 + len(ids)


@dataclass(frozen=True, eq=False)
class NeuronsData:
    empty: str | None  # why there is nothing to show; None where there is
    layers: int
    layer: int  # the selected one, whose neurons these are
    cursor: int
    neurons: tuple[Neuron, ...]  # strongest first
    no_tokens: str  # why the tokens that they raise and lower are not known; "" where they are
    ids: NDArray[np.int64]  # [layers, k], the strongest neurons of every layer, strongest first; -1 for none
    values: NDArray[np.float64]  # [layers, k], their activations


def data(view: View) -> NeuronsData:
    step, empty = view.step, why_no_layers(view)
    neurons = neurons_of(view, step) if step is not None else ()
    if empty is None and step is not None and not neurons:
        why = view.why_missing("neurons", view.layer)
        none = f"none: {one_line(why)}" if why else "none in this layer"
        empty = none if "neurons" in step.values else not_captured(view)
    no_tokens = _why_no_tokens(view, step) if step is not None and neurons else ""
    every = (view.values("neurons.ids"), view.values("neurons"))
    ids, values = (np.empty((0, 0)) if one is None else one for one in every)
    return NeuronsData(empty, view.layers, view.layer, view.cursor, neurons, no_tokens, ids.astype(np.int64), values.astype(np.float64))


def neurons_of(view: View, step: Step) -> tuple[Neuron, ...]:
    """The selected layer's neurons, strongest first."""
    values, ids = step.values.get("neurons"), step.values.get("neurons.ids")
    if values is None or ids is None or not 0 <= view.layer < len(values):
        return ()
    at = _place(step, view.layer)

    def neuron(row: int, number: int, value: float) -> Neuron:
        return Neuron(number, value) if at is None else Neuron(number, value, _tokens(step, at, row, 0), _tokens(step, at, row, 1))

    pairs = enumerate(zip(ids[view.layer].tolist(), values[view.layer].tolist()))
    return tuple(neuron(row, int(number), value) for row, (number, value) in pairs if number >= 0)


def _place(step: Step, layer: int) -> int | None:
    """The entry of a layer in "neuron_tokens"; None where it was not computed."""
    layers = [int(one) for one in step.values.get("neuron_tokens.layers", ())]
    return layers.index(layer) if layer in layers else None


def _tokens(step: Step, at: int, row: int, way: int) -> Tokens:
    ids: NDArray = step.values["neuron_tokens.token_ids"][at, row, way]
    moved: NDArray = step.values["neuron_tokens"][at, row, way]
    return tuple((visible(step.pieces.get(int(token), f"#{token}")), float(logit)) for token, logit in zip(ids, moved) if token >= 0)


def _why_no_tokens(view: View, step: Step) -> str:
    """Why the tokens of the selected layer are not there; "" where they are."""
    if _place(step, view.layer) is not None:
        return ""
    why = view.why_missing("neuron_tokens", view.layer)
    return one_line(why) if why else "no tokens: another layer was selected when this token was made"


def heading(data: NeuronsData, box: Box) -> str:
    return f"Neurons · layer {data.layer}" if data.layers else "Neurons"


def note(data: NeuronsData, box: Box) -> str:
    if not data.neurons:
        return ""
    hidden = len(data.neurons) - _count(box.height, _rows_each(data, box))
    more = f"{len(data.neurons) - hidden} of {len(data.neurons)} neurons" if hidden > 0 else ""
    return " · ".join(part for part in (more, data.no_tokens, f"logit changes of token {data.cursor}") if part)


def _rows_each(data: NeuronsData, box: Box) -> int:
    """Lines of a neuron: where what it moves does not fit beside it, two more, or one where all neurons fit only so."""
    if not data.neurons or data.neurons[0].raises is None or box.width >= ID + VALUE + 2 * LEAST_TOKENS + 12:
        return 1
    return 3 if box.height >= 3 * len(data.neurons) else 2


def _count(height: int, each: int) -> int:
    """Neurons that fit in so many lines; the first is never left out."""
    return max(1, height // each)


def render(data: NeuronsData, box: Box) -> list[Line]:
    instead = nothing_to_show(box, data.empty, LEAST)
    if instead is not None:
        return instead
    lengths = signed_shares([neuron.value for neuron in data.neurons], box.scale)
    each, most = _rows_each(data, box), max(len(tokens or ()) for neuron in data.neurons for tokens in (neuron.raises, neuron.lowers))
    lines: list[Line] = []
    for neuron, share in list(zip(data.neurons, lengths))[: _count(box.height, each)]:
        lines += _beside(box, neuron, float(share), most) if each == 1 else _below(box, neuron, float(share), each, most)
    return [*lines, *_every_layer(data, box, box.height - len(lines) - 1)][: max(box.height, 0)]


def _layers_in_sight(data: NeuronsData, rows: int) -> range:
    """As many layers as fit below a heading, the selected one in the middle; none where there is little room."""
    count = min(len(data.ids), rows - 1)
    first = max(0, min(data.layer - count // 2, len(data.ids) - count))
    return range(first, first + count) if count >= min(LEAST_LAYERS, len(data.ids)) else range(0)


def _every_layer(data: NeuronsData, box: Box, rows: int) -> list[Line]:
    """A blank line, and the strongest neurons of the layers in a grid, the highest layer first, coloured by their activations."""
    shown, label = _layers_in_sight(data, rows), len(str(data.layers)) + 2
    across = min(data.ids.shape[1], (box.width - label) // CELL)
    if not shown or across < 1:
        return []
    quiet, palette = ink(box.palette, "secondary"), box.palette
    part = data.values[shown.start : shown.stop, :across]
    most = float(np.abs(part[np.isfinite(part)]).max(initial=0.0)) or 1.0
    sight = f"layers {shown.start}–{shown.stop - 1} of {len(data.ids)}" if len(shown) < len(data.ids) else "every layer"
    lines: list[Line] = [[], [Segment(fit(fitting([f"the strongest neurons of {sight}", sight], box.width), box.width), quiet)]]
    for layer in reversed(shown):
        chosen = layer == data.layer
        mark = ink(palette, "accent" if chosen else "secondary", bold=chosen)
        line: Line = [Segment(f"{'▸' if chosen else ' '}{layer:>{label - 2}} ", mark)]
        for number, value in zip(data.ids[layer, :across].tolist(), data.values[layer, :across].tolist()):
            line += _cell(box, number, value, value / most)
        lines.append(line)
    return lines


def _cell(box: Box, number: int, value: float, share: float) -> Line:
    """`#1234  +3.21` on a ground of its colour; where there is none, with a line behind it."""
    if number < 0:
        return [Segment(" " * CELL)]
    good = bool(np.isfinite(value))
    shown = signed(value, 2) if good else f"! {number_text(value, 0)}"
    text = f"{fit(f'#{number}', CELL - 1 - VALUE)}{fit(shown, VALUE, '>')}"
    colours = box.palette.diverging
    on = colours[round((share + 1) / 2 * (len(colours) - 1))] if good and box.palette.color else ""
    style = ink(box.palette, readable(box.palette, on) if on else "text" if good else "warning", on)
    return [Segment(text, style), Segment(" ") if box.palette.color else Segment("│", ink(box.palette, "frame"))]


def pick(data: NeuronsData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of a row of the grid."""
    if data.empty is not None or not data.neurons or box.width < LEAST:
        return None
    used = min(len(data.neurons), _count(box.height, _rows_each(data, box))) * _rows_each(data, box)
    shown, at = _layers_in_sight(data, box.height - used - 1), y - used - 2
    return Selection(layer=shown[-1 - at]) if 0 <= at < len(shown) else None


def _start(box: Box, neuron: Neuron, share: float, width: int) -> Line:
    """`#1234 ███│ +3.21` with a bar of `width` cells."""
    good = bool(np.isfinite(neuron.value))
    shown = signed(neuron.value, 2) if good else f"! {number_text(neuron.value, 0)}"
    return [
        Segment(f"{f'#{neuron.number}':<{ID}}", ink(box.palette, "secondary")),
        *diverging_bar(box.palette, share, width, box.max_bar_length),
        Segment(shown.rjust(VALUE), ink(box.palette, "text" if good else "warning", bold=not good)),
    ]


def _beside(box: Box, neuron: Neuron, share: float, most: int) -> list[Line]:
    bars = max(9, min(25, box.width // 8))
    width = (box.width - ID - bars - VALUE - 2) // 2
    raises, lowers = (_effect(box, mark, neuron, width - (mark == "▲"), most) for mark in "▲▼")
    return [[*_start(box, neuron, share, bars), Segment("  "), *raises, Segment(" "), *lowers]]


def _below(box: Box, neuron: Neuron, share: float, each: int, most: int) -> list[Line]:
    """The bar, and below it in one line or in two what the neuron raises and lowers."""
    start = _start(box, neuron, share, max(0, min(box.width - ID - VALUE, MOST_BAR)))
    room = max(0, box.width - 2) if each > 2 else max(0, box.width - 3) // 2
    effects = [] if neuron.raises is None else [_effect(box, mark, neuron, room, most) for mark in "▲▼"]
    if each == 2 and effects:
        return [start, [Segment("  "), *effects[0], Segment(" "), *effects[1]]]
    return [start, *([Segment("  "), *effect] for effect in effects)]


def _effect(box: Box, mark: str, neuron: Neuron, width: int, most: int) -> Line:
    """`▲ ·Paris +0.82 ·London +0.51` in `width` cells, a column for each of at most `most` where several fit; blank for None.

    The first is never left out.
    """
    tokens, others = (neuron.raises, neuron.lowers) if mark == "▲" else (neuron.lowers, neuron.raises)
    if tokens is None:
        return [Segment(" " * width)]
    quiet, colours = ink(box.palette, "secondary"), box.palette.diverging
    line: Line = [Segment(mark, ink(box.palette, (colours[-1] if mark == "▲" else colours[0]) or "text"))]
    if not tokens:
        same = f"none: every logit {'falls' if mark == '▲' else 'rises'}"
        why = fitting([same, "none"] if others else ["none"], width - 2)
        return [Segment(fit(f"{mark} {why}", width), quiet)]
    count = min(most, max((width - 1) // (1 + NAME + CHANGE), min(2, (width - 1) // (1 + LEAST_NAME + CHANGE))))
    if count < 2:  # no columns: as much as there is room for
        token, change = tokens[0][0], f" {signed(tokens[0][1], 2)}"
        room = width - 2 - cells(change)
        if cells(token) > room:
            return [*line, Segment(fit(f" {token}", width - 1), ink(box.palette, "text"))]
        name = max(cells(token), min(room, MOST_NAME))
        return [*line, Segment(f" {fit(token, name)}", ink(box.palette, "text")), Segment(fit(change, width - 2 - name), quiet)]
    name = min(MOST_NAME, (width - 1) // count - 1 - CHANGE)
    for token, logit in tokens[:count]:
        line += [Segment(f" {fit(token, name)}", ink(box.palette, "text")), Segment(fit(signed(logit, 2), CHANGE, ">"), quiet)]
    return [*line, Segment(" " * max(0, width - line_width(line)))]
