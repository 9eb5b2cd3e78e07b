"""Residual norm of every layer: the size of the residual stream as the layer leaves it."""

from __future__ import annotations

from openmav.paint import Line
from openmav.panels.base import Box
from openmav.panels.widgets.norm_rows import NormData, norm_data, norm_legend, norm_lines, norm_note, norm_pick, norm_pointer, norm_title
from openmav.view import View

TITLE = "Residual norm"
NEEDS = ("residual_norm",)
LAYERS = True
MORE = 16  # with the selected layer token by token
HELP = """\
What it shows: one row a layer, the highest layer on top: how large the residual stream is after that layer. The
residual stream is the vector that runs through the whole model; every layer reads it and adds to it.

How to read it: follow it from the bottom up. Where it grows fast, a layer wrote something large; where it shrinks, a
layer took something back. A layer whose MLP and attention are small beside it changes little. The longest bar is the
largest of this token; --scale changes the bars, never the numbers.
Maximised (m), the panel also shows the norms of the tokens before and after, a cell each, on a scale of factors.
In rows below the layers the selected layer's norm is drawn token by token, up to the number beside its name.

Formula: the L2 norm, sqrt(sum of x squared), of the residual stream after the layer and before the final norm; with
--aggregation max_abs the largest |x|. No unit. Computed in 32-bit floating point.

Source: a hook on the layer, at the last position, for the token under the cursor. It is not transformers' last hidden
state, which is taken after the final norm.

What is normal: it grows with the layers, often many times over; the last layer may shrink it.
"""

pick = norm_pick
note = norm_note
legend = norm_legend
pointer = norm_pointer


def data(view: View) -> NormData:
    return norm_data(view, "residual_norm")


def heading(data: NormData, box: Box) -> str:
    return norm_title(data, box, "Residual")


def render(data: NormData, box: Box) -> list[Line]:
    return norm_lines(data, box, "residual")
