"""What the reader chose about sampling: one frozen dataclass, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from openmav.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; 0 or None switches a filter off. Stages run in this order: penalty, temperature, top-k, top-p, min-p."""

    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 1.0  # keep the smallest set of tokens whose probability reaches this
    min_p: float = 0.0  # drop tokens below this share of the most likely one
    repetition_penalty: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise UsageError(what)

        need(math.isfinite(self.temperature) and self.temperature >= 0, f"temperature must be 0 (greedy) or more, not {self.temperature:g}")
        need(self.top_k >= 0, f"top-k must be 0 (off) or more, not {self.top_k}")
        need(0 < self.top_p <= 1, f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        need(0 <= self.min_p <= 1, f"min-p must be between 0 and 1, not {self.min_p:g}")
        need(
            math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
            f"repetition penalty must be above 0 (1 is off), not {self.repetition_penalty:g}",
        )
        need(0 <= self.seed < 2**63, f"seed must be between 0 and 2^63 - 1, not {self.seed}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def describe(self) -> str:
        """One short line: "greedy" or "T 0.80 · top-k 50 · top-p 0.90"."""
        parts = ["greedy" if self.greedy else f"T {self.temperature:.2f}"]
        if not self.greedy:
            parts += [f"top-k {self.top_k}"] * (self.top_k > 0)
            parts += [f"top-p {self.top_p:.2f}"] * (self.top_p < 1)
            parts += [f"min-p {self.min_p:.2f}"] * (self.min_p > 0)
        parts += [f"penalty {self.repetition_penalty:.2f}"] * (self.repetition_penalty != 1)
        return " · ".join(parts)
