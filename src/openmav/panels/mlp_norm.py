"""MLP norm of every layer: the size of what its MLP sub-block adds to the residual stream."""

from __future__ import annotations

from openmav.paint import Line
from openmav.panels.base import Box
from openmav.panels.widgets.norm_rows import NormData, norm_data, norm_legend, norm_lines, norm_note, norm_pick, norm_pointer, norm_title
from openmav.view import View

TITLE = "MLP norm"
NEEDS = ("mlp_norm",)
LAYERS = True
MORE = 16  # with the selected layer token by token
HELP = """\
What it shows: one row a layer, the highest layer on top. The bar and the number say how large the vector is that the
layer's MLP (the feed-forward part) adds to the residual stream at this position.

How to read it: a long bar means that this layer's MLP changes the running representation a lot; a short one means
that it hardly takes part in this token. Bars are scaled to the largest of this token, attention's included, so that the
two panels can be compared; --scale log or minmax changes the bars, never the numbers.
Maximised (m), the panel also shows the norms of the tokens before and after, a cell each, on a scale of factors.
In rows below the layers the selected layer's norm is drawn token by token, up to the number beside its name.

Formula: the L2 norm, sqrt(sum of x squared), of what the MLP sub-block ADDS, after any post-norm or residual
multiplier; with --aggregation max_abs the largest |x|. No unit. Computed in 32-bit floating point.

Source: a hook on the layer, at the last position, for the token under the cursor.

What is normal: late layers are larger than early ones; one or two layers often stand out. "none" means that the layer
has no MLP. "! NaN" means that the model itself computed something that is not a number.
"""

pick = norm_pick
note = norm_note
legend = norm_legend
pointer = norm_pointer


def data(view: View) -> NormData:
    return norm_data(view, "mlp_norm")


def heading(data: NormData, box: Box) -> str:
    return norm_title(data, box, "MLP")


def render(data: NormData, box: Box) -> list[Line]:
    return norm_lines(data, box, "mlp")
