"""The parts of a logit, of the difference of two candidates' logits, or of two tokens' logits: what each layer and the rest adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmav.paint import visible
from openmav.record import Step
from openmav.view import View

PARTS = ("embedding", "other", "bias", "rest")  # what stands below the layers


@dataclass(frozen=True)
class Sum:
    """The parts of one logit, or of the difference of two; logits."""

    parts: NDArray[np.float64]  # [layers, 2]: attention and MLP
    embedding: float
    other: float  # what layers add beside attention and MLP
    bias: float
    rest: float  # what is not explained
    logit: float
    of: str  # the token, or "A minus B"

    @property
    def explained(self) -> float:
        """All parts that are known."""
        return float(np.nansum(self.parts) + np.nan_to_num(self.embedding) + np.nan_to_num(self.other)) + self.bias

    @property
    def below(self) -> list[tuple[str, float]]:
        """The rows below the layers: names and numbers; that of other parts only where there are some."""
        return [(name, getattr(self, name)) for name in PARTS if name != "other" or self.other]


def sum_of(view: View, step: Step, place: int | None) -> Sum:
    """The parts of the chosen token's logit, or of its lead over the token at `place` among those that were attributed."""
    parts, name = step.values["attribution"].astype(np.float64), visible(step.token)
    whole = {part: _number(step, f"attribution.{part}") for part in (*PARTS, "logit")}
    if place is not None:
        parts = parts - step.values["attribution.top"][:, :, place]
        whole = {part: value - _number(step, f"attribution.top.{part}", place) for part, value in whole.items()}
        name = f"{name} minus {visible(step.candidates.tokens[view.candidate or 0])}"
    return Sum(parts=parts, of=name, **whole)


def has_parts(step: Step, shown: Sum) -> bool:
    parts = step.values.get("attribution")
    return parts is not None and parts.shape == shown.parts.shape


def less(a: Sum, b: Sum, what: str) -> Sum:
    """All parts of one logit less those of another; they still sum up to the difference of the logits."""
    whole = {part: getattr(a, part) - getattr(b, part) for part in (*PARTS, "logit")}
    return Sum(parts=a.parts - b.parts, of=f"{a.of} {what.split(' · ')[0]}", **whole)


def _number(step: Step, name: str, place: int = 0) -> float:
    """One part of the whole; recordings of older versions have no "other"."""
    values = step.values.get(name)
    return 0.0 if values is None else float(np.ravel(values)[place])
