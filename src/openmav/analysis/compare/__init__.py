"""Two runs in lockstep on the same tokens: how far apart their next-token distributions and their layers are, and where they part.

A generates, and B is fed each token that A drew. docs/compare.md gives every formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.record import EndReason, Step

if TYPE_CHECKING:
    from openmav.generation.session import Session

Part: TypeAlias = Literal["attention", "MLP", "residual"]
SITES: Mapping[Part, str] = {"attention": "attention.out", "MLP": "mlp.out", "residual": "residual.after"}  # in the order of a layer
MEASURES = ("attention_norm", "mlp_norm", "residual_norm")  # whose sites these are
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ROUNDINGS = 8  # how many roundings of the coarser dtype a layer may be off before the runs part there


@dataclass(frozen=True)
class Apart:
    """A part of each layer in both runs, [layers] fp64: the norm of A - B, its share of A's residual stream, the cosine of A and B.

    NaN where a layer has no such part, and a cosine where one of both is zero.
    """

    difference: NDArray[np.float64]
    share: NDArray[np.float64]
    cosine: NDArray[np.float64]


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
        for part, apart in one.layers.items():
            for name in ("difference", "cosine"):
                self._layers.setdefault((part, name), []).append(getattr(apart, name))

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
        epsilons = {info.dtype: EPSILON.get(info.dtype, EPSILON["bfloat16"]) for info in (a.info, b.info)}
        self.coarser = max(epsilons, key=lambda dtype: epsilons[dtype])
        self.given = threshold is not None
        self.threshold = ROUNDINGS * epsilons[self.coarser] if threshold is None else threshold
        self.why_no_layers = _why_no_layers(a, b)

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
        from openmav.analysis.compare.numbers import apart, divergence

        one, other = self.a.frame, self.b.frame
        assert one is not None
        assert other is not None
        layers = {} if self.why_no_layers else {part: apart(one, other, site) for part, site in SITES.items()}
        return ComparedToken(a, b, divergence(one.logits, other.logits), layers, self._parting(a.index, layers))

    def _parting(self, token: int, layers: Mapping[Part, Apart]) -> Parting | None:
        count = len(layers["residual"].share) if layers else 0
        for layer in range(count):
            for part, apart in layers.items():
                if apart.share[layer] > self.threshold:
                    return Parting(token, layer, part, float(apart.share[layer]))
        return None


def _why_no_layers(a: Session, b: Session) -> str:
    shapes = [(session.info.layers, session.info.width) for session in (a, b)]
    if shapes[0] == shapes[1]:
        return ""
    return " and ".join(f"{layers} layers of width {width}" for layers, width in shapes)
