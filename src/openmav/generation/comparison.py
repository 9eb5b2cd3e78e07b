"""How far apart two models are on the same tokens: their next-token distributions, and their layers; all in fp64.

docs/compare.md gives every formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame
from openmav.record import Baseline, Prompt, Step, freeze_values
from openmav.record.comparison import COMPARISON, MEASURES, PARTS, Comparison, Part, first_parting

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.generation.session import Session

SITES: Mapping[Part, str] = dict(zip(PARTS, ("attention.out", "mlp.out", "residual.after")))
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


def divergence(a: Tensor, b: Tensor) -> float:
    """KL(A || B) = sum p_A (ln p_A - ln p_B) in nats of two [vocab] logits; a token that A rules out adds nothing."""
    import torch

    log_a, log_b = (torch.log_softmax(logits.double(), dim=-1) for logits in (a, b))
    terms = torch.where(log_a == float("-inf"), 0.0, log_a.exp() * (log_a - log_b))
    total = float(terms.sum())
    return max(total, 0.0) if total == total else total


def apart(a: Frame, b: Frame, site: str) -> Apart:
    """The site of each layer in two forward passes."""
    rows = zip(a.sites[site], b.sites[site], a.sites["residual.after"], strict=True)
    columns = np.array([_one(*row) for row in rows], dtype=np.float64).reshape(-1, 3)
    return Apart(*columns.T)


def _one(a: Tensor | None, b: Tensor | None, residual: Tensor | None) -> tuple[float, float, float]:
    """‖a - b‖₂, ‖a - b‖₂ / ‖residual‖₂, cosine of a and b."""
    import torch

    if a is None or b is None:
        return (float("nan"),) * 3
    one, other = (x.detach().to("cpu", torch.float64).reshape(-1) for x in (a, b))
    difference = float((one - other).norm())
    scale = float("nan") if residual is None else float(residual.detach().to("cpu", torch.float64).norm())
    lengths = float(one.norm()) * float(other.norm())
    share = 0.0 if difference == 0 else difference / scale if scale else float("inf")
    return difference, share, float(one @ other) / lengths if lengths else float("nan")


def threshold_of(a: Session, b: Session) -> tuple[float, str]:
    """The share of the residual stream from which on two runs part, and the coarser of their dtypes, which sets it."""
    epsilons = {info.dtype: EPSILON.get(info.dtype, EPSILON["bfloat16"]) for info in (a.info, b.info)}
    coarser = max(epsilons, key=lambda dtype: epsilons[dtype])
    return ROUNDINGS * epsilons[coarser], coarser


def why_no_layers(a: Session, b: Session) -> str:
    """The shapes of the models, where they are not the same; "" where they are."""
    shapes = [(session.info.layers, session.info.width) for session in (a, b)]
    return "" if shapes[0] == shapes[1] else " and ".join(f"{layers} layers of width {width}" for layers, width in shapes)


def first_apart(layers: Mapping[Part, Apart], threshold: float) -> tuple[int, Part] | None:
    """The lowest layer with a share above the threshold, and the first part of it that has one."""
    for layer in range(len(layers["residual"].share) if layers else 0):
        for part, one in layers.items():
            if one.share[layer] > threshold:
                return layer, part
    return None


def comparison_of(a: Session, b: Session, threshold: float) -> Comparison:
    """What A's session is compared with."""
    info = b.info
    what = " · ".join((info.name, *b.interventions, f"{info.dtype} on {info.device}"))
    prompt = b.prompt.text if b.prompt.token_ids != a.prompt.token_ids else ""
    return Comparison(what, prompt, threshold, why_no_layers(a, b))


@dataclass(frozen=True)
class Passes:
    """The forward passes of A and B that predict a token, and what B has at its place, without measures."""

    a: Frame
    b: Frame
    other: Baseline

    @cached_property
    def divergence(self) -> float:
        """KL(A || B), nats."""
        return divergence(self.a.logits, self.b.logits)


def compared(step: Step, before: Step | None, passes: Passes, layers: Mapping[Part, Apart], threshold: float) -> Step:
    """A's step, after the one `before` it, with the entries that record.comparison lists."""
    import torch

    a, b, other = passes.a, passes.b, passes.other
    probs_a, probs_b = (torch.softmax(frame.logits.double(), dim=-1).numpy() for frame in (a, b))
    likely, mine = other.candidates, step.candidates.token_ids
    values: dict[str, NDArray] = {
        "kl": np.array([passes.divergence]),
        "token_ids": likely.token_ids,
        "probs": probs_b[likely.token_ids],
        "probs_in_a": probs_a[likely.token_ids],
        "probs_in_b": probs_b[mine],
        "logprob": np.array([other.logprob]),
        "entropy": np.array([other.entropy]),
    }
    if layers:
        for name in ("difference", "share", "cosine"):
            values[name] = np.array([getattr(layers[part], name) for part in PARTS])
        place = first_apart(layers, threshold)
        here = (-1, -1) if place is None else (place[0], PARTS.index(place[1]))
        first = None if before is None else first_parting(before)
        values["parting"] = np.array(here)
        values["first"] = np.array((step.index if place else -1, *here) if first is None else (*first[:2], PARTS.index(first[2])))
    entries = freeze_values({f"{COMPARISON}.{name}": array for name, array in values.items()})
    pieces = {**step.pieces, **dict(zip(likely.token_ids.tolist(), likely.tokens))}
    return replace(step, values={**step.values, **entries}, pieces=pieces)


class Follower:
    """B beside a session: it reads each token that A takes, also after an undo, on another branch, or after another prompt."""

    def __init__(self, a: Session, b: Session, threshold: float | None = None) -> None:
        self.b = b
        self.needs = frozenset(MEASURES)
        self.comparison = comparison_of(a, b, threshold_of(a, b)[0] if threshold is None else threshold)

    def compare(self, step: Step, a: Frame, prompt: Prompt, before: Sequence[Step]) -> Step:
        """A's step, made from this pass after the prompt and the steps `before`, with the entries of the comparison."""
        if not self.comparison.prompt and prompt.token_ids != self.b.prompt.token_ids:
            self.b.edit_prompt(prompt.text)
        b, other = self.b.beside([one.token_id for one in before], step.token_id)
        known = all(site in frame.sites for site in SITES.values() for frame in (a, b))
        layers = {part: apart(a, b, site) for part, site in SITES.items()} if known and not self.comparison.why_no_layers else {}
        return compared(step, before[-1] if before else None, Passes(a, b, other), layers, self.comparison.threshold)

    def close(self) -> None:
        self.b.close()
