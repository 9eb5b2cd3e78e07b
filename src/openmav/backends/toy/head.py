"""The toy's head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openmav.backends.base import Directions

PUSH, SCALE = 6.0, 1 / 64  # logits = SCALE * embedding @ residual, and PUSH for the next word


@dataclass(frozen=True)
class ToyHead:
    """Satisfies backends.base.Head: linear, with a bias towards one token."""

    embedding: Tensor  # [vocab, width]
    pushed: int
    down: Sequence[Tensor]  # [width, hidden] of each layer

    def logits(self, residuals: Tensor) -> Tensor:
        logits: Tensor = residuals @ self.embedding.T * SCALE
        logits[:, self.pushed] += PUSH
        return logits

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions:
        ids = torch.tensor(token_ids)
        return Directions(self.embedding[ids] * SCALE, PUSH * (ids == self.pushed), logits[ids])

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, _residual: Tensor, count: int) -> tuple[Tensor, Tensor]:
        written = self.down[layer][:, list(ids)] * hidden[list(ids)]  # [width, n]
        logits = SCALE * (self.embedding @ written).T
        high, low = logits.topk(count), logits.topk(count, largest=False)
        return torch.stack([high.indices, low.indices], 1), torch.stack([high.values, low.values], 1)
