"""What a measure is: a module with TITLE, NEEDS (sites of the frame) and `compute(frame, context)`, a pure function of one forward pass.

`compute` returns one array, or several as a mapping whose names begin with the measure's own: {"logit_lens": ...,
"logit_lens.token_ids": ...}. Float arrays are kept as fp32, ids as int64 with -1 for none; the session adds the token strings
of all arrays whose name ends in ".token_ids".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openmav.backends.base import Layers
from openmav.settings import Aggregation
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SamplingStage:
    """A stage of the sampling chain, by its name in record.SAMPLING_STAGES, and its output scores [vocab]: -inf for removed tokens."""

    name: str
    scores: Tensor


@dataclass(frozen=True)
class Context:
    """What a measure may use besides the sites.

    `probs` and `sampled_probs` are [vocab], fp32, of the raw logits and after the sampling chain; `top_ids` [n] are the most
    likely tokens by raw logits, in order, at least as many as the largest of record.RANK_EDGES where the vocabulary has them.
    `stages` are the output scores [vocab] of each stage of the sampling chain; `sampling` are the settings in use.
    `layer` is the selected layer, for measures that would be too expensive for all layers.
    """

    logits: Tensor
    probs: Tensor
    sampled_probs: Tensor
    top_ids: Tensor
    token_id: int  # the chosen one
    aggregation: Aggregation = "l2"
    stages: Sequence[SamplingStage] = ()
    sampling: Sampling = field(default_factory=Sampling)
    layer: int | None = None


SMALL = 1 << 20  # numbers that one core is through with sooner than several that have to be woken


def is_small(values: Tensor) -> bool:
    """Whether numpy is to compute with them: torch's threads and a backend's own wait for each other on the same cores."""
    return values.device.type == "cpu" and values.numel() <= SMALL


def stacked(rows: Sequence[Tensor | None]) -> tuple[Tensor | None, list[int]]:
    """The rows that are not None as one fp32 tensor [n, ...], and their layers; (None, []) where there are none."""
    import torch

    if isinstance(rows, Layers):
        return rows.whole.float(), list(range(len(rows)))
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
    if isinstance(rows, Layers):
        return [list(range(len(rows)))]
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer, row in enumerate(rows):
        if row is not None:
            groups.setdefault(tuple(row.shape), []).append(layer)
    return list(groups.values())
