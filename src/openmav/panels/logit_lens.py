"""Logit lens: what the model would say next if it ended after each layer."""

from __future__ import annotations

import math

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, one_line, percent, shares, visible
from openmav.panels._grid import fitting
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, pick_layer, waiting
from openmav.panels._lens import MEASURE, Lens, lens_of, mark, piece, said
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Logit lens"
NEEDS = ("logit_lens",)
LAYERS = True
WEIGHT = 1.3
HELP = """\
What it shows: one row a layer, the highest layer on top: the token that the model would say next if it ended after this
layer, with a bar and its probability; where there is room, the layer's next tokens too. A space is shown as · and a
newline as ⏎. The token that was chosen stands in amber.

How to read it: read from below to see the answer form. ◇ marks the layer where the final answer is on top for the first
time, ◆ the layer from which on it stays there, │ the layers above, ◦ one where it is on top for a while; the lower edge
says it in words. The highest row is the model's own output. The longest bar is the largest of this token; --scale changes
the bars, never the numbers.

Formula: softmax(unembed(final norm(x_l))), with x_l the residual stream after layer l, through the model's own final norm
and head; in 32-bit floating point, over the whole vocabulary.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The rows are computed for a token while this panel is
shown.

What is normal: nonsense or copies of the last token in the lower layers, a sudden turn to sensible words in the middle,
and the final answer only in the last quarter. A token that stays early was easy. Small models turn late.
"""
LEAST_BAR = 4
OTHER = 18  # cells of one more token and its probability

pick = pick_layer


def heading(view: View, width: int) -> str:
    return fitting(["Logit lens · each layer's top token and p", "Logit lens · top token", "Logit lens"], width)


def note(view: View, width: int, height: int) -> str:
    lens = lens_of(view.step) if view.step is not None else None
    parts = [hidden_note(view, 0 if width < 48 else width, height) if view.gutter else ""]
    if lens is not None and view.step is not None:
        parts.insert(0, said(view.step, lens, width < 48))
        if lens.answer >= 0 and lens.answer != view.step.token_id:
            parts.append(f"chosen: {piece_of_choice(view.step)}")
    return " · ".join(part for part in parts if part)


def piece_of_choice(step: Step) -> str:
    """The token that was chosen, where it is not the lens' own answer."""
    return piece(step, step.token_id) if step.token_id in step.pieces else visible(step.token)


def _widths(view: View, lens: Lens, room: int) -> tuple[int, int, int]:
    """(cells of the top token, of the longest bar, how many more tokens) in `room` cells."""
    token = max(4, min(16, (room - 2 - 8) // 2))
    spare = room - 2 - token - 1 - 8 - 12
    others = max(0, min(lens.ids.shape[1] - 1, spare // OTHER))
    left = max(0, room - 2 - token - 1 - 8 - others * OTHER)
    longest = min(left, 24) if others else left
    return token, min(longest, view.options.max_bar_length or longest) if longest >= LEAST_BAR else 0, others


def render(view: View, width: int, height: int) -> list[Line]:
    step = view.step
    if step is None or view.layers == 0:
        return waiting(view, width)
    lens = lens_of(step)
    if lens is None:
        return not_captured(view, width)
    lengths = shares(lens.probs[:, 0], view.options.scale)
    widths = _widths(view, lens, width - gutter_width(view))

    def cell(layer: int, room: int) -> Line:
        return _row(view, step, lens, layer, float(lengths[layer]), widths, room)

    return layer_lines(view, width, height, cell)


def _row(view: View, step: Step, lens: Lens, layer: int, share: float, widths: tuple[int, int, int], room: int) -> Line:
    token_room, longest, others = widths
    top, value = int(lens.ids[layer, 0]), float(lens.probs[layer, 0])
    palette = view.palette
    why = view.why_missing(MEASURE, layer)
    if top < 0 and why is not None:
        return [Segment(fit(f"  none: {one_line(why)}", room), ink(palette, "secondary"))]
    if not math.isfinite(value):
        return [Segment(fit("! NaN" if math.isnan(value) else "! inf", room), ink(palette, "warning", bold=True))]
    chosen = top == step.token_id
    role, bold = "accent" if chosen else "text", layer >= lens.stays >= 0 or layer == view.layer
    line = [Segment(f"{mark(lens, layer)} ", ink(palette, "accent" if chosen else "secondary", bold=True))]
    if room < 2 + token_room + 1 + 7:  # the token alone
        return [*line, Segment(fit(piece(step, top), max(1, room - 2)), ink(palette, role, bold=bold))]
    line.append(Segment(f"{fit(piece(step, top), token_room)} ", ink(palette, role, bold=bold)))
    if longest:
        shown = bar(share, longest)
        line += [Segment(shown, ink(palette, "accent" if chosen else "probability")), Segment(" " * (longest - len(shown) + 1))]
    line.append(Segment(percent(value), ink(palette, "text", bold=layer == view.layer)))
    for rank in range(1, others + 1):
        line += _other(view, step, lens, layer, rank)
    return line


def _other(view: View, step: Step, lens: Lens, layer: int, rank: int) -> Line:
    """One of the layer's further tokens, and its probability."""
    token_id = int(lens.ids[layer, rank])
    if token_id < 0:
        return []
    role = "accent" if token_id == step.token_id else "residual"
    name = fit(piece(step, token_id), OTHER - 10)
    return [
        Segment(f"  {name}", ink(view.palette, role)),
        Segment(f" {percent(float(lens.probs[layer, rank]))}", ink(view.palette, "secondary")),
    ]
