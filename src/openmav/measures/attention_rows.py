"""Attention rows: where every head of every layer looks from the last position.

[layers, heads, tokens], probability: the softmax weights over the tokens that the model has read (the prompt and what was
generated, without the token that is chosen now), oldest first; they sum to 1, or to less where a learned sink takes a share. 0 for
a token that a head can't see, such as one outside of a sliding window. A row of 2,000 tokens of 30 layers with 9 heads takes
2 MB a step: ask for it only where it is shown.
Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
"""

from __future__ import annotations

from openmav.backends._base import Frame
from openmav.measures._base import Context
from openmav.measures._rows import rows_over_tokens
from openmav.record import Array

TITLE = "attention rows"
NEEDS = ("attention.probs",)


def compute(frame: Frame, _context: Context) -> Array:
    """[layers, heads, tokens] fp32; NaN for a layer without softmax attention."""
    return rows_over_tokens(frame)
