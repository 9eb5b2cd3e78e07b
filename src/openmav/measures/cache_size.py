"""Cache size: what the model keeps in memory of all tokens that it has read.

[1], bytes: the keys and values of all layers (and the states of layers that keep a state instead), for the prompt and what was
generated; room that is set aside for tokens to come does not count. 0 where the backend keeps nothing or does not tell.
Source: the tensors that the model's own cache holds.
"""

from __future__ import annotations

import numpy as np

from openmav.backends._base import Frame
from openmav.measures._base import Context
from openmav.record import Array

TITLE = "cache size"
NEEDS = ()


def compute(frame: Frame, _context: Context) -> Array:
    """[1] fp32, bytes."""
    return np.array([0.0 if frame.cache_bytes is None else frame.cache_bytes()], dtype=np.float32)
