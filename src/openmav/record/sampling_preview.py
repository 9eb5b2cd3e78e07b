"""What another sampling would leave of a token's distribution; nothing is drawn, and the run stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from openmav.record.step import Array, Ids


@dataclass(frozen=True, eq=False)
class SamplingPreview:
    """The candidates [k] of a generated token, in the order of its step, after each stage of `sampling` that is on.

    `values` are the measures "sampling_stages" and "distribution" as they would be with this sampling.
    """

    sampling: Sampling
    index: int  # of the generated token; 0 is the first
    token_id: int  # that was chosen there
    token_ids: Ids  # [k]
    tokens: tuple[str, ...]  # [k]
    stages: tuple[str, ...]  # [stages], "raw" first, by their names in record.SAMPLING_STAGES; "greedy" last where nothing is drawn
    probs: Array  # [stages, k], 0 where a stage cut the token
    values: Mapping[str, Array]

    @property
    def raw(self) -> Array:
        """[k] of the model's own distribution."""
        raw: Array = self.probs[0]
        return raw

    @property
    def sampled(self) -> Array:
        """[k] after all stages."""
        sampled: Array = self.probs[-1]
        return sampled
