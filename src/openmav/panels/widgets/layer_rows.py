"""What all layer panels share: the same row is the same layer in each of them, the highest layer on top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, line_width, number, number_text, one_line
from openmav.panels.base import Box
from openmav.panels.widgets.difference import Difference
from openmav.record import Array
from openmav.view import Selection, View

NUMBER_WIDTH = 5  # cells that a number takes at least
NO_TOKEN = "no token yet"
Missing = tuple[str | None, ...]  # [layers], why a layer has no value; None where it has one


@dataclass(frozen=True, kw_only=True)
class LayerData:
    """What the data of every layer panel has."""

    empty: str | None  # why there are no values, "" while the model is loading or reads the prompt; None where there are
    layers: int
    layer: int  # the selected one
    missing: Missing = ()


# ---- data ----------------------------------------------------------------------------------------------------------------


def why_no_step(view: View) -> str | None:
    """Why there is no token to show, for a reader; "" while the model is not ready; None where there is one."""
    if view.step is not None:
        return None
    return "" if view.status in ("loading", "prefill", "failed") else NO_TOKEN


def why_no_layers(view: View) -> str | None:
    """As `why_no_step`, for a panel that needs a model with layers."""
    if view.step is not None and view.layers:
        return None
    return "" if view.status in ("loading", "prefill", "failed") else NO_TOKEN


def not_captured(view: View, measure: str = "") -> str:
    """Why the shown step does not hold a measure: it is on its way, no longer kept, or was never computed."""
    if view.recomputing == view.cursor >= 0:
        return "computing"
    dropped = view.step is not None and measure in view.step.dropped
    return "no longer kept for this token, to bound the memory" if dropped else "not captured for this token"


def why_empty(view: View, captured: bool, measure: str = "") -> str | None:
    """Why a layer panel has nothing to show; None where it has."""
    none = why_no_layers(view)
    return none if none is not None or captured else not_captured(view, measure)


def missing_of(view: View, measure: str) -> Missing:
    """Why each layer has no value of the measure."""
    return tuple(None if why is None else one_line(why) for why in (view.why_missing(measure, layer) for layer in range(view.layers)))


# ---- drawing -------------------------------------------------------------------------------------------------------------


def shown_layers(data: LayerData, box: Box) -> list[int]:
    """The layers that the box shows, from the top."""
    first = max(0, min(box.scroll, data.layers - box.height))
    return [data.layers - 1 - row for row in range(first, min(first + box.height, data.layers))]


def hidden_note(data: LayerData, box: Box, short: bool = False) -> str:
    """Says which layers are shown where not all are; "" where all are, or where a neighbour says it."""
    rows = shown_layers(data, box) if box.gutter else []
    if len(rows) in (0, data.layers):
        return ""
    above, below = rows[0] < data.layers - 1, rows[-1] > 0
    text = f"{rows[-1]}–{rows[0]} of {data.layers} {'▲' * above}{'▼' * below}"
    return f"layers {text}" if not short and box.width >= len(text) + 10 else text


def gutter_width(data: LayerData, box: Box) -> int:
    """Cells of mark, number and scroll arrow; 0 where a neighbour draws them."""
    return len(str(max(data.layers - 1, 0))) + 3 if box.gutter else 0


def _gutter(data: LayerData, box: Box, rows: Sequence[int], at: int) -> Line:
    if not box.gutter:
        return []
    layer, digits = rows[at], gutter_width(data, box) - 3
    selected = layer == data.layer
    arrow = "▲" if at == 0 and layer < data.layers - 1 else "▼" if at == len(rows) - 1 and layer > 0 else " "
    style = ink(box.palette, "accent" if selected else "secondary", bold=selected)
    return [Segment(f"{'▸' if selected else ' '}{layer:>{digits}}", style), Segment(f"{arrow} ", ink(box.palette, "secondary"))]


def layer_lines(data: LayerData, box: Box, cell: Callable[[int, int], Line]) -> list[Line]:
    """A row for each layer that fits: its number, then `cell(layer, width)`."""
    rows = shown_layers(data, box)
    room = max(0, box.width - gutter_width(data, box))
    return that_fit(box, [[*_gutter(data, box, rows, at), *cell(layer, room)] for at, layer in enumerate(rows)])


def message(box: Box, text: str) -> list[Line]:
    """One quiet line, for example why there is nothing to show; none for ""."""
    return [[Segment(fit(text, box.width), ink(box.palette, "secondary"))]] if text else []


def _narrow(box: Box) -> list[Line]:
    whole = "too narrow (m: maximise)"
    return message(box, whole if box.width >= len(whole) else "narrow: m")


def too_narrow(box: Box) -> list[Line]:
    """What is shown where numbers would have to be cut: the key m gives the panel the whole screen."""
    return _narrow(box)[: max(box.height, 0)]


def nothing_to_show(box: Box, empty: str | None, least: int) -> list[Line] | None:
    """What is shown instead of values: nothing before there is a token, else that the box is narrower than `least`, else why."""
    if box.width < least and empty not in ("", NO_TOKEN):
        return too_narrow(box)
    return None if empty is None else message(box, empty)


def that_fit(box: Box, lines: list[Line]) -> list[Line]:
    """The lines, or the message that the box is too narrow where the frame would cut one of them."""
    return lines if all(line_width(line) <= box.width for line in lines) else _narrow(box)


def overlaid_legend(box: Box) -> Line:
    """What the parts of bars before and after sampling are."""
    quiet, hue = ink(box.palette, "secondary"), ink(box.palette, "probability")
    return [Segment("█ kept ", hue), Segment("▒ gained ", hue), Segment("░ lost by sampling", quiet)]


def decimals_for(largest: float) -> tuple[int, int]:
    """(decimals, cells) of numbers whose `first_largest` is this, so that they stay the same throughout a run."""
    decimals = 3 if 0 < largest < 1 else 2 if largest < 10 else 1
    return decimals, min(max(NUMBER_WIDTH, len(number_text(largest, decimals)) + 1), 2 * NUMBER_WIDTH)


def value_cell(data: LayerData, box: Box, layer: int, value: float, share: float, hue: str, decimals: int, digits: int, width: int) -> Line:
    """A bar and its number in `width` cells; "none" and why where the layer has no such value, a flag where it is not finite."""
    bar_width = max(0, width - digits - 1)
    why = data.missing[layer]
    if why is not None and not math.isfinite(value):
        text = fit(why, bar_width) if bar_width >= 6 else " " * bar_width
        return [Segment(f"{text} {'none':>{digits}}"[:width].rjust(width), ink(box.palette, "secondary"))]
    if not math.isfinite(value):
        flag = f"! {number_text(value, 0)}"
        return [Segment(" " * max(0, width - len(flag))), Segment(flag, ink(box.palette, "warning", bold=True))]
    shown = bar(share, box.longest(bar_width))
    return [
        Segment(shown, ink(box.palette, hue)),
        Segment(" " * (bar_width - len(shown) + 1)),
        Segment(number(value, decimals, digits), ink(box.palette, "text", bold=layer == data.layer)),
    ]


def changes_of(minus: Difference | None, values: Array) -> Array | None:
    """The values less those that they are compared with; None where there are none."""
    return None if minus is None or minus.values is None else values - minus.values


def minus_note(minus: Difference | None, box: Box) -> str:
    """What is subtracted; "" where nothing is, or where a neighbour on the left says it."""
    return minus.note if minus is not None and (box.gutter or minus.values is None) else ""


def pick_layer(data: LayerData, box: Box, x: int, y: int) -> Selection | None:
    """The layer of the row that was clicked."""
    rows = shown_layers(data, box)
    return Selection(layer=rows[y]) if 0 <= y < len(rows) else None
