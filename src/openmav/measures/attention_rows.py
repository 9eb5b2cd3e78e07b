"""Attention rows: what each head of each layer attends to from the last position.

[layers, heads, tokens], probability: the softmax weights over the tokens that the model has read (the prompt and what was
generated, without the token that is chosen now), oldest first; 0 for a token that a head can't see, for example one outside of
a sliding window. They sum to 1, or to less where a learned sink has a share, or keys that stand for blocks of several tokens
(DeepSeek V4's compressed keys). The rows of 30 layers with 9 heads over 2,000 tokens take 2 MB per step: request them only where
they are shown.
Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
"""

from __future__ import annotations

from openmav.backends.base import Frame
from openmav.measures._rows import rows_over_tokens
from openmav.measures.base import Context
from openmav.record import Array

TITLE = "attention rows"
NEEDS = ("attention.probs",)


def compute(frame: Frame, _context: Context) -> Array:
    """[layers, heads, tokens] fp32; NaN for a layer without softmax attention."""
    return rows_over_tokens(frame)
