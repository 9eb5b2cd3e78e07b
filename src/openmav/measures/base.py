"""What a measure is: a module with TITLE, NEEDS (sites of the frame) and `compute(frame, context)`, a pure function of one forward pass.

`compute` returns one array, or several as a mapping whose names begin with the measure's own: {"logit_lens": ...,
"logit_lens.token_ids": ...}. Float arrays are kept as fp32, ids as int64 with -1 for none; the session adds the token strings
of all arrays whose name ends in ".token_ids".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from openmav.backends.base import Layers, Numbers
from openmav.record import Array
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
    """What a measure may use besides the sites. mav's own measures find numpy arrays here where the backend has made such.

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

    def with_tensors(self) -> Context:
        """For a measure of somebody's own: tensors also where mav's own have done with numpy arrays."""
        import torch

        names = ("logits", "probs", "sampled_probs", "top_ids")
        tensors: dict[str, Any] = {name: torch.as_tensor(getattr(self, name)) for name in names}
        return replace(self, **tensors)


SMALL = 1 << 20  # numbers that one core is through with sooner than several that have to be woken


def is_small(values: Numbers) -> bool:
    """Whether numpy is to compute with them: torch's threads and a backend's own wait for each other on the same cores."""
    return isinstance(values, np.ndarray) or (values.device.type == "cpu" and values.numel() <= SMALL)


def array_of(values: Numbers) -> Array:
    """Arrays as they are, a tensor as one on the CPU."""
    array: Array = values if isinstance(values, np.ndarray) else values.cpu().numpy()
    return array


def stacked(rows: Sequence[Any]) -> tuple[Any, list[int]]:
    """The rows that are not None as one fp32 tensor or array [n, ...], and their layers; (None, []) where there are none."""
    if isinstance(rows, Layers):
        whole = rows.whole
        return whole.astype(np.float32, copy=False) if isinstance(whole, np.ndarray) else whole.float(), list(range(len(rows)))
    layers = [i for i, row in enumerate(rows) if row is not None]
    present = [row for row in rows if row is not None]
    if not present:
        return None, []
    if isinstance(present[0], np.ndarray):
        return np.stack(present).astype(np.float32, copy=False), layers
    import torch

    try:
        stack = torch.stack(present)
    except RuntimeError:  # the layers live on several devices
        stack = torch.stack([row.cpu() for row in present])
    return stack.float(), layers


def alike(rows: Sequence[Any]) -> list[list[int]]:
    """Layers grouped by the shape of their rows: a sliding window has fewer keys than full attention."""
    if isinstance(rows, Layers):
        return [list(range(len(rows)))]
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer, row in enumerate(rows):
        if row is not None:
            groups.setdefault(tuple(row.shape), []).append(layer)
    return list(groups.values())
