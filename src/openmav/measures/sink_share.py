"""Sink share: how much attention goes to attention sinks: the first token, and a learned sink where the model has one.

"sink_share" [layers, heads], 0..1: a_0 + s, with a_0 the last position's attention to the first token (0 outside of a
sliding window) and s the share of a learned sink; "sink_share.learned" [layers, heads] is s alone. A row with a learned sink sums to 1 - s
over the tokens; s is 0 where the row sums to 1 to within rounding (0.0001).
Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping

from openmav.backends.base import Frame
from openmav.measures._rows import learned_share, rows_over_tokens
from openmav.measures.base import Context
from openmav.record import Array

TITLE = "sink share"
NEEDS = ("attention.probs",)


def compute(frame: Frame, _context: Context) -> Mapping[str, Array]:
    """Both [layers, heads] fp32; NaN for a layer without softmax attention."""
    rows = rows_over_tokens(frame)
    learned = learned_share(frame)
    return {"sink_share": rows[..., 0] + learned, "sink_share.learned": learned}
