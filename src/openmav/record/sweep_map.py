"""The effects of ablating each head, sub-block or layer alone on one token, as far as they are known; it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from openmav.record.step import Array
    from openmav.settings.interventions import How
    from openmav.settings.sites import Swept


@dataclass(frozen=True, eq=False)
class SweepMap:
    """Changes of the token's raw logit, [layers, sites]: below 0 where the site raises it. `known` says which are computed.

    The sites are the heads of a layer, or one where its attention, its MLP or all of it is ablated.
    """

    index: int  # of the generated token; 0 is the first
    token_id: int
    token: str
    logit: float  # without any ablation
    changes: Array  # [layers, sites] fp32, 0 where not known
    known: NDArray[np.bool_]  # [layers, sites]
    total: int  # sites that can be ablated
    of_baseline: bool = False  # the run has interventions; this is of the model without them
    stopped: bool = False  # by the user, before all were done
    what: Swept = "heads"
    how: How = "zero"  # what a site adds instead
    branch: str = ""  # that the token is of
    number: int = 0  # 1 is the first sweep of a run

    @property
    def done(self) -> int:
        """Sites that are computed."""
        return int(self.known.sum())

    @property
    def under_way(self) -> bool:
        return not self.stopped and self.done < self.total
