"""MLP norm: the norm of what the MLP sub-block adds to the residual stream (after any post-norm or residual multiplier).

[layers], in the units of the residual stream: ||x||_2, or max |x| with the aggregation max_abs; at the last position.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), for the residual stream as a sum.
"""

from __future__ import annotations

from openmav.backends.base import Frame
from openmav.measures._norm import norms
from openmav.measures.base import Context
from openmav.record import Array

TITLE = "MLP norm"
NEEDS = ("mlp.out",)


def compute(frame: Frame, context: Context) -> Array:
    """[layers] fp32."""
    return norms(frame, "mlp.out", context.aggregation)
