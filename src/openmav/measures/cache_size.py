"""Cache size: the memory of the KV cache for all tokens that the model has read.

[1], bytes: the keys and values of all layers (and the states of layers that keep a state instead), for the prompt and what was
generated. A layer with a sliding window counts with all tokens: mav keeps those outside of the window too, for undo.
Memory that is reserved for later tokens does not count, nor do counters. 0 where the backend has no cache or does not report it.
Source: the tensors of the model's own cache.
"""

from __future__ import annotations

import numpy as np

from openmav.backends.base import Frame
from openmav.measures.base import Context
from openmav.record import Array

TITLE = "cache size"
NEEDS = ()


def compute(frame: Frame, _context: Context) -> Array:
    """[1] fp32, bytes."""
    return np.array([0.0 if frame.cache_bytes is None else frame.cache_bytes()], dtype=np.float32)
