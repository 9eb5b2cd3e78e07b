"""How a token is chosen: `Sampling` says all of it, `SamplingOptions` what the user requested; the model's settings fill in the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from openmav.errors import UsageError

SMALLEST = 1e-25  # a lower temperature is greedy: logits divided by it exceed the range of fp32
PENALTIES = 1e-10, 1e10  # a penalty outside of them would exceed the range of fp32


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; 0 or None switches a filter off. The stages run in the order of record.SAMPLING_STAGES.

    `stages` are those that the model's generation config adds, by their names in record.SAMPLING_STAGES, each with its setting (for a
    list of tokens, its length).
    """

    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 1.0  # keep the smallest set of tokens whose probability reaches this
    min_p: float = 0.0  # drop tokens below this share of the most likely one
    repetition_penalty: float = 1.0
    seed: int = 42
    stages: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise UsageError(what)

        least, most = PENALTIES
        need(math.isfinite(self.temperature) and self.temperature >= 0, f"temperature must be 0 (greedy) or more, not {self.temperature:g}")
        need(self.top_k >= 0, f"top-k must be 0 (off) or more, not {self.top_k}")
        need(0 < self.top_p <= 1, f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        need(0 <= self.min_p <= 1, f"min-p must be between 0 and 1, not {self.min_p:g}")
        need(
            least <= self.repetition_penalty <= most,
            f"repetition penalty must be between {least:g} and {most:g} (1 is off), not {self.repetition_penalty:g}",
        )
        need(0 <= self.seed < 2**63, f"seed must be between 0 and 2^63 - 1, not {self.seed}")

    @property
    def greedy(self) -> bool:
        return self.temperature < SMALLEST

    def over(self, defaults: Sampling) -> Sampling:
        """These settings, with the stages of `defaults`."""
        return replace(self, stages=defaults.stages)

    def describe(self) -> str:
        """One short line: "greedy" or "T 0.80 · top-k 50 · top-p 0.90"."""
        parts = ["greedy" if self.greedy else f"T {_number(self.temperature)}"]
        if not self.greedy:
            parts += [f"top-k {self.top_k}"] * (self.top_k > 0)
            parts += [f"top-p {_number(self.top_p)}"] * (self.top_p < 1)
            parts += [f"min-p {_number(self.min_p)}"] * (self.min_p > 0)
        parts += [f"penalty {_number(self.repetition_penalty)}"] * (self.repetition_penalty != 1)
        parts += [f"{len(self.stages)} more of the model's"] * bool(self.stages)
        return " · ".join(parts)


@dataclass(frozen=True)
class SamplingOptions:
    """The options of a user, named as in Sampling; None: from the model's generation config, or else Sampling's default.

    A temperature above 0 samples, 0 is greedy, regardless of the generation config.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self.over(Sampling())

    @property
    def given(self) -> frozenset[str]:
        """The names of the options that are set."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def over(self, defaults: Sampling) -> Sampling:
        """All of `defaults` but the options that are set. Raises UsageError for a value that makes no sense."""
        return replace(defaults, **{name: getattr(self, name) for name in self.given})


def _number(value: float) -> str:
    """Two decimals, more where they would read 0."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.1g}"
