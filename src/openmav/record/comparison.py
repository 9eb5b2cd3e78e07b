"""A comparison of two runs as it is kept: entries of A's steps, and what B is. docs/compare.md defines each number.

    comparison.kl             [1] KL(A || B) of the next-token distributions, nats
    comparison.difference     [3, layers] norm of A - B, by PARTS
    comparison.share          [3, layers] the same divided by the norm of A's residual stream after the layer
    comparison.cosine         [3, layers] of A and B; NaN where one of both is zero
    comparison.parting        [2] the lowest layer that is further apart than rounding explains, and its part; -1, -1 for none
    comparison.first          [3] the first token up to this one at which the runs part, the layer and the part; -1, -1, -1 for none
    comparison.token_ids      [k] the tokens that are most likely in B, most likely first
    comparison.probs          [k] their probabilities in B
    comparison.probs_in_a     [k] and in A
    comparison.probs_in_b     [candidates of the step] the probabilities in B of A's candidates
    comparison.logprob        [1] of the step's token in B
    comparison.entropy        [1] of B's distribution, nats

Those of layers are absent where the layers of the two can't be compared. Arrays are fp32, ids and places int64.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from openmav.record.step import Step

Part: TypeAlias = Literal["attention", "MLP", "residual"]
PARTS: tuple[Part, ...] = get_args(Part)  # in the order of a layer
MEASURES = ("attention_norm", "mlp_norm", "residual_norm")  # that look at these parts
COMPARISON = "comparison"


@dataclass(frozen=True)
class Comparison:
    """What A is compared with. `threshold`: the share of A's residual stream from which on the runs part."""

    b: str  # B's model, dtype and device, and what is changed in it
    prompt: str  # B's, where it has one of its own; else ""
    threshold: float
    why_no_layers: str = ""  # why layers are not compared; "" where they are

    @classmethod
    def read(cls, content: Any) -> Comparison:
        """From what a file has of it. Raises ValueError, TypeError or KeyError where it is none."""
        values = {one.name: content[one.name] for one in fields(cls)}
        threshold = values.pop("threshold")
        if not all(isinstance(value, str) for value in values.values()) or not isinstance(threshold, (int, float)):
            raise ValueError("a comparison")
        return cls(**values, threshold=float(threshold))


def divergence_of(step: Step) -> float | None:
    """KL(A || B) at a step, nats; None where it was not compared."""
    kl = step.values.get(f"{COMPARISON}.kl")
    return None if kl is None or kl.size != 1 else float(kl.item())


def parting_of(step: Step) -> tuple[int, Part] | None:
    """The layer and the part at which the runs part at a step; None where they don't, or where layers were not compared."""
    place = _place(step, "parting", 2)
    return None if place is None else (place[0], PARTS[place[1]])


def first_parting(step: Step) -> tuple[int, int, Part] | None:
    """The first token up to a step at which the runs part, the layer and the part; None as in `parting_of`."""
    place = _place(step, "first", 3)
    return None if place is None else (place[0], place[1], PARTS[place[2]])


def _place(step: Step, name: str, count: int) -> list[int] | None:
    """The numbers of a place, the last of them a part; None where there is none."""
    place = step.values.get(f"{COMPARISON}.{name}")
    if place is None or place.size != count:
        return None
    numbers = [int(one) for one in place.ravel()]
    return numbers if min(numbers) >= 0 and numbers[-1] < len(PARTS) else None


def flips(step: Step) -> bool:
    """Whether the most likely token is another in B."""
    ids = step.values.get(f"{COMPARISON}.token_ids")
    return ids is not None and ids.size > 0 and ids.item(0) != step.candidates.token_ids.item(0)
