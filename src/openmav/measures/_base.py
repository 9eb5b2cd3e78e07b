"""What a measure is: a module with TITLE, NEEDS (sites of the frame) and `compute(frame, context)`, a pure function of one forward pass.

`compute` returns one array, or several as a mapping whose names begin with the measure's own: {"logit_lens": ...,
"logit_lens.token_ids": ...}. Float arrays are kept as fp32, ids as int64 with -1 for none; the session adds the texts of all
ids whose name ends in ".token_ids".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openmav.sampling import Sampling
from openmav.settings import Aggregation

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.sampler import Stage


@dataclass(frozen=True)
class Context:
    """What measures may look at besides the sites.

    `probs` and `sampled_probs` are [vocab], fp32, of the raw logits and after the sampling chain; `top_ids` [n] are the most
    likely tokens by raw logits, in order, at least as many as the largest of record.RANK_EDGES where the vocabulary has them.
    `stages` are what each stage of the sampling chain left, [vocab] scores; `sampling` is what the reader chose.
    `layer` is the one that the reader looks at, for measures that would cost too much for all layers.
    """

    logits: Tensor
    probs: Tensor
    sampled_probs: Tensor
    top_ids: Tensor
    token_id: int  # the chosen one
    aggregation: Aggregation = "l2"
    stages: Sequence[Stage] = ()
    sampling: Sampling = field(default_factory=Sampling)
    layer: int | None = None


def stacked(rows: Sequence[Tensor | None]) -> tuple[Tensor | None, list[int]]:
    """The rows that are there as one fp32 tensor [n, ...], and the layers they belong to; (None, []) for none."""
    import torch

    layers = [i for i, row in enumerate(rows) if row is not None]
    present = [row for row in rows if row is not None]
    if not present:
        return None, []
    try:
        stack = torch.stack(present)
    except RuntimeError:  # the layers live on several devices
        stack = torch.stack([row.cpu() for row in present])
    return stack.float(), layers


def alike(rows: Sequence[Tensor | None]) -> list[list[int]]:
    """Layers grouped by the shape of their rows: a sliding window has fewer keys than full attention."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer, row in enumerate(rows):
        if row is not None:
            groups.setdefault(tuple(row.shape), []).append(layer)
    return list(groups.values())
