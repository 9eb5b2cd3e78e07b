"""A fixed text of ids, and the frame of its last token, for tests on models without a tokenizer."""

from __future__ import annotations

import torch

from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend

IDS = torch.randint(3, 128, (18,), generator=torch.Generator().manual_seed(5)).tolist()


def feed(backend: TransformersBackend) -> Frame:
    """A prompt, and one token after it."""
    backend.prefill(IDS[:-1], SITES)
    return backend.decode_one_token(IDS[-1], SITES)
