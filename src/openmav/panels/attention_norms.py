"""Attention norm of every layer: the size of what its attention sub-block adds to the residual stream."""

from __future__ import annotations

from openmav.paint import Line
from openmav.panels.base import Box
from openmav.panels.widgets.norm_rows import NormData, norm_data, norm_legend, norm_lines, norm_note, norm_pick, norm_pointer, norm_title
from openmav.view import View

TITLE = "Attention norm"
NEEDS = ("attention_norm",)
LAYERS = True
MORE = 16  # with the selected layer token by token
HELP = """\
What it shows: one row a layer, the highest layer on top. The bar and the number say how large the vector is that the
layer's attention adds to the residual stream at this position.

How to read it: a long bar means that the layer brings in much from other tokens (or from the first one, where many
heads rest). Compare it with the MLP of the same row: bars are scaled to the largest of this token, the MLP's included;
--scale changes the bars, never the numbers.
Maximised (m), the panel also shows the norms of the tokens before and after, a cell each, on a scale of factors.
In rows below the layers the selected layer's norm is drawn token by token, up to the number beside its name.

Formula: the L2 norm, sqrt(sum of x squared), of what the attention sub-block ADDS, after its output projection and
any post-norm or residual multiplier; with --aggregation max_abs the largest |x|. No unit. Computed in 32-bit floating
point.

Source: a hook on the layer, at the last position, for the token under the cursor.

What is normal: smaller than the MLP in most layers. "none" means that the layer has no attention.
"""

pick = norm_pick
note = norm_note
legend = norm_legend
pointer = norm_pointer


def data(view: View) -> NormData:
    return norm_data(view, "attention_norm")


def heading(data: NormData, box: Box) -> str:
    return norm_title(data, box, "Attention")


def render(data: NormData, box: Box) -> list[Line]:
    return norm_lines(data, box, "attention")
