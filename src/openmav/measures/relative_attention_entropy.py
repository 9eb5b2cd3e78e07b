"""Relative attention entropy: how widely each head spreads its attention, relative to the maximum.

[layers, heads], 0..1: H / ln n, with H the attention entropy in nats and n the number of tokens that the head can see from the
last position; 0 means one token only, 1 means equal weights. A head that can see one token has 0. n counts a learned sink as one
more key, and a key that stands for a block of several tokens as one. A layer with a sliding window has its own, smaller n.
Source: Shannon's relative entropy of a source (1948), section 7, for a row of attention.
"""

from __future__ import annotations

import numpy as np

from openmav.backends.base import Frame
from openmav.measures import attention_entropy
from openmav.measures._rows import learned_share, visible
from openmav.measures.base import Context
from openmav.record import Array

TITLE = "relative attention entropy"
NEEDS = ("attention.probs", "attention.scores")


def compute(frame: Frame, context: Context) -> Array:
    """[layers, heads] fp32; NaN for a layer without softmax attention."""
    entropy = attention_entropy.compute(frame, context)
    places = visible(frame) + (learned_share(frame) > 0)
    widest = np.log(np.maximum(places, 2))  # with one place the entropy is 0
    return np.minimum(entropy / widest, 1.0, dtype=np.float32)
