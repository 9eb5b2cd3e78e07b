"""The effects of ablating each head alone on one token, as far as they are known; it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from openmav.record.step import Array


@dataclass(frozen=True, eq=False)
class SweepMap:
    """Changes of the token's raw logit, [layers, heads]: below 0 where the head raises it. `known` says which are computed."""

    index: int  # of the generated token; 0 is the first
    token_id: int
    token: str
    logit: float  # without any ablation
    changes: Array  # [layers, heads] fp32, 0 where not known
    known: NDArray[np.bool_]  # [layers, heads]
    total: int  # heads that can be ablated
    of_baseline: bool = False  # the run has interventions; this is of the model without them
    stopped: bool = False  # by the user, before all were done

    @property
    def done(self) -> int:
        """Heads that are computed."""
        return int(self.known.sum())

    @property
    def under_way(self) -> bool:
        return not self.stopped and self.done < self.total
