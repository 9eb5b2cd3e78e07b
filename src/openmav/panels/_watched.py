"""Conditions over the run: what the reader set, and their values at its tokens, each worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from openmav.conditions import Condition, ConditionError, Value, parse
from openmav.panels._view import View
from openmav.record import ModelInfo, Step

KEPT = 1 << 15  # values that are remembered
_values: dict[tuple[str, int], tuple[Step, ModelInfo | None, Value]] = {}


@dataclass(frozen=True)
class Watched:
    """A breakpoint or a watch. `condition` is None where the text is none for this model; `why` says so."""

    text: str
    stops: bool
    condition: Condition | None
    why: str = ""

    def value(self, view: View, index: int) -> Value:
        return None if self.condition is None else value_at(self.condition, view.steps, view.info, index)

    def shown(self, view: View, index: int) -> str:
        """For a reader: the value; of what holds or not, the numbers that it looked at, where there are any."""
        if self.condition is None:
            return "–"
        arguments = (view.steps[index], view.info, view.steps)
        looked = self.condition.measured(*arguments) if self.condition.kind == "truth" else ""
        return looked or self.condition.shown(*arguments)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Condition | ConditionError:
    try:
        return parse(text)
    except ConditionError as error:
        return error


def watched(view: View) -> tuple[Watched, ...]:
    """Breakpoints, then watches; what is both is a breakpoint."""
    return _all(view.breakpoints, view.watches, (view.layers, view.heads) if view.info is not None else None)


@lru_cache(maxsize=16)
def _all(breakpoints: tuple[str, ...], watches: tuple[str, ...], size: tuple[int, int] | None) -> tuple[Watched, ...]:
    texts = dict.fromkeys(breakpoints, True) | {text: False for text in watches if text not in breakpoints}
    return tuple(_one(text, stops, size) for text, stops in texts.items())


def _one(text: str, stops: bool, size: tuple[int, int] | None) -> Watched:
    found = _parsed(text)
    if isinstance(found, ConditionError):
        return Watched(text, stops, None, found.why)
    try:
        if size is not None:
            found.fits(*size)
    except ConditionError as error:
        return Watched(text, stops, None, error.why)
    return Watched(text, stops, found)


def value_at(condition: Condition, steps: Sequence[Step], info: ModelInfo | None, index: int) -> Value:
    """The value at a token. A step never changes, and what stands before it does not either, so that it is kept."""
    step, key = steps[index], (condition.text, id(steps[index]))
    known = _values.get(key)
    if known is None or known[0] is not step or known[1] is not info:
        if len(_values) >= KEPT:
            _values.clear()
        known = _values[key] = (step, info, condition.value(step, info, steps))
    return known[2]


def held(view: View, index: int) -> tuple[str, ...]:
    """The breakpoints that hold at a token."""
    return tuple(one.text for one in watched(view) if one.stops and one.value(view, index) is True)
