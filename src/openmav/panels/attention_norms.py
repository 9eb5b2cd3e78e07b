"""Attention norm of every layer: the size of what its attention sub-block adds to the residual stream."""

from __future__ import annotations

from openmav.paint import Line
from openmav.panels._layers import hidden_note, norm_lines, norm_title, pick_layer
from openmav.panels._view import View

TITLE = "Attention norm"
NEEDS = ("attention_norm",)
LAYERS = True
HELP = """\
What it shows: one row a layer, the highest layer on top. The bar and the number say how large the vector is that the
layer's attention adds to the residual stream at this position.

How to read it: a long bar means that the layer brings in much from other tokens (or from the first one, where many
heads rest). Compare it with the MLP of the same row. The longest bar is the largest of this token; --scale changes
the bars, never the numbers.

Formula: the L2 norm, sqrt(sum of x squared), of what the attention sub-block ADDS, after its output projection and
any post-norm or residual multiplier; with --aggregation max_abs the largest |x|. No unit. Computed in 32-bit floating
point.

Source: a hook on the layer, at the last position, for the token under the cursor.

What is normal: smaller than the MLP in most layers. "none" means that the layer has no attention.
"""

pick = pick_layer


def heading(view: View, width: int) -> str:
    return norm_title(view, "Attention", width)


def note(view: View, width: int, height: int) -> str:
    return hidden_note(view, width, height) if view.gutter else ""


def render(view: View, width: int, height: int) -> list[Line]:
    return norm_lines(view, "attention_norm", "attention", width, height)
