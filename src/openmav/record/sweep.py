"""What a sweep is of and what it found: each site of one kind ablated alone, and the effect on one token's probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openmav.record.step import ModelInfo, Prompt
from openmav.settings.interventions import How, Intervention
from openmav.settings.sites import Swept

SweepEnd: TypeAlias = Literal["done", "interrupt"]


@dataclass(frozen=True)
class Token:
    """A token and its string inside a text."""

    token_id: int
    text: str


@dataclass(frozen=True)
class Reading:
    """The target in one forward pass: its raw logit, probability and log-probability (nats), and the logit of `minus`."""

    logit: float
    prob: float
    logprob: float
    minus_logit: float | None = None

    @property
    def score(self) -> float:
        """The logit, or the difference of the two logits where there is a `minus`."""
        return self.logit if self.minus_logit is None else self.logit - self.minus_logit


@dataclass(frozen=True)
class Effect:
    """One ablated site, and the target before and after."""

    intervention: Intervention
    before: Reading
    after: Reading

    @property
    def layer(self) -> int:
        return self.intervention.layer

    @property
    def column(self) -> int:
        """Its column in the row of its layer: the head, else 0."""
        return self.intervention.index or 0

    @property
    def change(self) -> float:
        """The change of the score, in logits: below 0 where the site raises the target's logit."""
        return self.after.score - self.before.score


@dataclass(frozen=True)
class Plan:
    """The settings of a sweep. `sites` are ablated one after another; `missing` are those that this model does not have, and why."""

    info: ModelInfo
    prompt: Prompt
    what: Swept
    how: How
    target: Token
    minus: Token | None
    before: Reading
    sites: tuple[Intervention, ...]
    missing: Mapping[Intervention, str]

    @property
    def columns(self) -> int:
        """Columns of the map: one per head, else one."""
        return self.info.heads if self.what == "heads" else 1


def swept_sites(what: Swept, layers: int, heads: int, how: How) -> Sequence[Intervention]:
    """An ablation of each site of one kind, the lowest layer first."""
    if what == "heads":
        return [Intervention("ablate", layer, "head", head, how=how) for layer in range(layers) for head in range(heads)]
    site: Literal["attn", "mlp", "layer"] = "layer" if what == "layers" else what
    return [Intervention("ablate", layer, site, how=how) for layer in range(layers)]
