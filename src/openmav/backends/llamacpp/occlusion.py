"""Input attribution of a GGUF file: by occlusion, since llama.cpp computes no gradients; see backends/attribution/methods.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from openmav.errors import NoGradientError

WHY = "llama.cpp computes no gradients; occlusion needs none"


class Texts:
    """Satisfies backends.attribution.methods.Passes. `logits_after` runs one whole text; `reference` stands in a token's place."""

    eps = torch.finfo(torch.float32).eps

    def __init__(self, logits_after: Callable[[Sequence[int]], Tensor], reference: int) -> None:
        self._logits_after, self.reference = logits_after, reference

    def from_ids(self, rows: Tensor) -> Tensor:
        return torch.stack([self._logits_after(ids) for ids in rows.tolist()])

    def at_once(self, _tokens: int, _differentiable: bool) -> int:
        return 1

    def embed(self, _ids: Sequence[int]) -> Tensor:
        raise NoGradientError(WHY)

    def from_embeddings(self, _ids: Sequence[int], _rows: Tensor) -> Tensor:
        raise NoGradientError(WHY)

    def differentiating(self) -> AbstractContextManager[object]:
        raise NoGradientError(WHY)
