"""What all layer panels share: the same row is the same layer in each of them, the highest layer on top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, line_width, number, number_text, one_line, shares
from openmav.panels._view import View

SHORT_TITLE = 5  # letters of a title that has no room
NUMBER_ROOM = 5  # cells that a number takes at least


def shown_layers(view: View, height: int) -> list[int]:
    """The layers that `height` rows show, from the top."""
    first = max(0, min(view.scroll, view.layers - height))
    return [view.layers - 1 - row for row in range(first, min(first + height, view.layers))]


def hidden_note(view: View, width: int, height: int) -> str:
    """Says which layers are shown where not all are; "" where all are. It is short where `width` is."""
    rows = shown_layers(view, height)
    if len(rows) in (0, view.layers):
        return ""
    above, below = rows[0] < view.layers - 1, rows[-1] > 0
    said = f"{rows[-1]}–{rows[0]} of {view.layers} {'▲' * above}{'▼' * below}"
    return f"layers {said}" if width >= len(said) + 10 else said


def gutter_width(view: View) -> int:
    """Cells of mark, number and scroll arrow; 0 where a neighbour draws them."""
    return len(str(max(view.layers - 1, 0))) + 3 if view.gutter else 0


def _gutter(view: View, rows: Sequence[int], at: int) -> Line:
    if not view.gutter:
        return []
    layer, digits = rows[at], gutter_width(view) - 3
    selected = layer == view.layer
    arrow = "▲" if at == 0 and layer < view.layers - 1 else "▼" if at == len(rows) - 1 and layer > 0 else " "
    style = ink(view.palette, "accent" if selected else "secondary", bold=selected)
    return [Segment(f"{'▸' if selected else ' '}{layer:>{digits}}", style), Segment(f"{arrow} ", ink(view.palette, "secondary"))]


def layer_lines(view: View, width: int, height: int, cell: Callable[[int, int], Line]) -> list[Line]:
    """A row for each layer that fits: its number, then `cell(layer, room)`."""
    if view.layers == 0 or view.step is None:
        return waiting(view, width)
    rows = shown_layers(view, height)
    room = max(0, width - gutter_width(view))
    return that_fit(view, width, [[*_gutter(view, rows, at), *cell(layer, room)] for at, layer in enumerate(rows)])


def waiting(view: View, width: int) -> list[Line]:
    """What stands where there is no step to show; nothing while the model is not ready."""
    if view.status in ("loading", "prefill", "failed"):
        return []
    return [[Segment(fit("no token yet", width), ink(view.palette, "secondary"))]]


def too_narrow(view: View, width: int) -> list[Line]:
    """What stands where numbers would have to be cut: the key m gives the panel all of the screen."""
    return [[Segment(fit("no room: m", width), ink(view.palette, "secondary"))]]


def that_fit(view: View, width: int, lines: list[Line]) -> list[Line]:
    """The lines, or what says that the box is too narrow where the frame would cut one of them."""
    return lines if all(line_width(line) <= width for line in lines) else too_narrow(view, width)


def not_captured(view: View, width: int, measure: str = "") -> list[Line]:
    """What stands where the shown step holds no such measure, or holds it no more."""
    dropped = view.step is not None and measure in view.step.dropped
    text = "no longer kept for this token, to bound the memory" if dropped else "not captured for this token"
    return [[Segment(fit(text, width), ink(view.palette, "secondary"))]]


def decimals_for(view: View, measure: str) -> tuple[int, int]:
    """Decimals and cells for a measure's numbers, taken from the run's first step so that they stay the same all along."""
    first = next((step.values[measure] for step in view.steps[:1] if measure in step.values), None)
    finite = first[np.isfinite(first)] if first is not None else np.empty(0)
    top = float(np.abs(finite).max()) if finite.size else 0.0
    decimals = 3 if 0 < top < 1 else 2 if top < 10 else 1
    return decimals, min(max(NUMBER_ROOM, len(number_text(top, decimals)) + 1), 2 * NUMBER_ROOM)


def value_cell(view: View, measure: str, layer: int, value: float, share: float, hue: str, decimals: int, digits: int, room: int) -> Line:
    """A bar and its number in `room` cells; "none" and why where the layer has no such value, a flag where it is not finite."""
    bar_room = max(0, room - digits - 1)
    why = view.why_missing(measure, layer)
    if why is not None and not math.isfinite(value):
        text = fit(one_line(why), bar_room) if bar_room >= 6 else " " * bar_room
        return [Segment(f"{text} {'none':>{digits}}"[:room].rjust(room), ink(view.palette, "secondary"))]
    if not math.isfinite(value):
        flag = f"! {number_text(value, 0)}"
        return [Segment(" " * max(0, room - len(flag))), Segment(flag, ink(view.palette, "warning", bold=True))]
    longest = min(bar_room, view.options.max_bar_length or bar_room)
    shown = bar(share, longest)
    chosen = layer == view.layer
    return [
        Segment(shown, ink(view.palette, hue)),
        Segment(" " * (bar_room - len(shown) + 1)),
        Segment(number(value, decimals, digits), ink(view.palette, "text", bold=chosen)),
    ]


def norm_lines(view: View, measure: str, hue: str, width: int, height: int) -> list[Line]:
    """Rows of bar and number for a measure of shape [layers]."""
    values = view.values(measure)
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    if values is None:
        return not_captured(view, width)
    lengths = shares(values, view.options.scale)
    decimals, digits = decimals_for(view, measure)

    def cell(layer: int, room: int) -> Line:
        return value_cell(view, measure, layer, float(values[layer]), float(lengths[layer]), hue, decimals, digits, room)

    return layer_lines(view, width, height, cell)


def pick_layer(view: View, width: int, height: int, x: int, y: int) -> View:
    """The layer of the row that was clicked."""
    rows = shown_layers(view, height)
    return view.at_layer(rows[y]) if 0 <= y < len(rows) else view


def norm_title(view: View, what: str, width: int) -> str:
    """The title of a norm, with how the chosen aggregation is written where there is room."""
    full = f"{what} {'‖x‖₂' if view.options.aggregation == 'l2' else 'max |x|'}"
    return next((title for title in (full, what) if cells(title) <= width), what[:SHORT_TITLE])
