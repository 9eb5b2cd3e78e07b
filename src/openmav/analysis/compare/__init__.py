"""Two runs in lockstep on the same tokens: how far apart their next-token distributions and their layers are, and where they part.

A generates, and B is fed each token that A drew. docs/compare.md gives every formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openmav.generation.comparison import SITES, Apart, Passes, apart, compared, comparison_of, first_apart, threshold_of
from openmav.generation.session import Session
from openmav.record import Baseline, EndReason, Step
from openmav.record.comparison import Part


@dataclass(frozen=True)
class Parting:
    """The lowest layer of a token at which the runs are further apart than rounding explains, and the first part of it that is."""

    token: int
    layer: int
    part: Part
    share: float


@dataclass(frozen=True)
class ComparedToken:
    """One token in both runs. `kl` is KL(A || B) of the whole next-token distribution, in nats."""

    a: Step
    b: Step
    kl: float
    layers: Mapping[Part, Apart]  # empty where the layers can't be compared
    parting: Parting | None

    @property
    def flips(self) -> bool:
        """Whether the most likely token is another."""
        return bool(self.a.candidates.token_ids[0] != self.b.candidates.token_ids[0])


@dataclass
class Totals:
    """What all tokens say together."""

    tokens: int = 0
    flips: list[int] = field(default_factory=list)
    kl_sum: float = 0.0
    kl_max: float = 0.0
    kl_max_token: int | None = None
    first: Parting | None = None
    _layers: dict[tuple[Part, str], list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, one: ComparedToken) -> None:
        at = one.a.index
        self.tokens += 1
        self.kl_sum += one.kl
        if one.flips:
            self.flips.append(at)
        if self.kl_max_token is None or one.kl > self.kl_max or np.isnan(one.kl):
            self.kl_max, self.kl_max_token = one.kl, at
        self.first = self.first or one.parting
        for part, values in one.layers.items():
            for name in ("difference", "cosine"):
                self._layers.setdefault((part, name), []).append(getattr(values, name))

    @property
    def kl_mean(self) -> float:
        return self.kl_sum / self.tokens if self.tokens else float("nan")

    def mean(self, part: Part, name: Literal["difference", "cosine"]) -> NDArray[np.float64]:
        """[layers]: the mean over all tokens; empty where layers were not compared."""
        rows = self._layers.get((part, name))
        return np.mean(rows, axis=0) if rows else np.empty(0)

    def within(self, limit: float) -> bool:
        """Whether no token's divergence is above the limit; NaN is."""
        return self.kl_max <= limit


class Lockstep:
    """Two sessions of one vocabulary, which it steps. `threshold`: the share of the residual stream from which on they part."""

    def __init__(self, a: Session, b: Session, threshold: float | None = None) -> None:
        self.a, self.b = a, b
        least, self.coarser = threshold_of(a, b)
        self.given = threshold is not None
        self.threshold = least if threshold is None else threshold
        a.comparison = comparison_of(a, b, self.threshold)
        self.why_no_layers = a.comparison.why_no_layers

    @property
    def reason(self) -> EndReason | None:
        """Why A's text ended; None while it goes on."""
        return self.a.reason

    def __iter__(self) -> Iterator[ComparedToken]:
        while self.a.reason is None:
            step = self.a.step()
            self.b.go_on()  # past an end that B has and A has not
            yield self._compare(step, self.b.force(step.token_id))

    def _compare(self, a: Step, b: Step) -> ComparedToken:
        """A's step in its session has the comparison from now on."""
        one, other = self.a.frame, self.b.frame
        assert one is not None
        assert other is not None
        layers = {} if self.why_no_layers else {part: apart(one, other, site) for part, site in SITES.items()}
        place = first_apart(layers, self.threshold)
        parting = None if place is None else Parting(a.index, *place, float(layers[place[1]].share[place[0]]))
        passes = Passes(one, other, Baseline(b.candidates, b.logprob, b.entropy, {}, {}))
        before = self.a.steps[-2] if len(self.a.steps) > 1 else None
        self.a.steps[-1] = compared(a, before, passes, layers, self.threshold)
        return ComparedToken(a, b, passes.divergence, layers, parting)
