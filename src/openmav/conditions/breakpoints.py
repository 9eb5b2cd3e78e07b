"""Breakpoints: conditions that stop the generation, tested on each token before the model is run for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openmav.conditions import parse_breakpoint
from openmav.record import ModelInfo, Step


@dataclass(frozen=True)
class Hit:
    """A breakpoint that was hit: its text, the token, and what it looked at there, such as "5.12"; "" for nothing."""

    text: str
    index: int
    measured: str = ""

    def __str__(self) -> str:
        """Such as "breakpoint entropy > 4: 5.12 at token 17"."""
        return f"breakpoint {self.text}{f': {self.measured}' if self.measured else ''} at token {self.index}"


class Breakpoints:
    """The breakpoints of a run. `needs` are the measures that must be computed for them."""

    def __init__(self, texts: Sequence[str] = (), info: ModelInfo | None = None) -> None:
        """Raises ConditionError for a text that is no condition, or that does not fit the model."""
        self._conditions = [parse_breakpoint(text) for text in dict.fromkeys(texts)]
        for condition in self._conditions:
            if info is not None:
                condition.check(info)
        self.texts = tuple(condition.text for condition in self._conditions)
        self.needs = frozenset[str]().union(*(condition.needs for condition in self._conditions))

    def __len__(self) -> int:
        return len(self._conditions)

    def hit(self, step: Step, info: ModelInfo, steps: Sequence[Step]) -> Hit | None:
        """The first one that is hit at a step; None where none does. `steps` are those of the run."""
        for condition in self._conditions:
            if condition.holds(step, info, steps):
                return Hit(condition.text, step.index, condition.measured(step, info, steps))
        return None
