"""Conditions over the run: what the user set, and their values at its tokens, each worked out once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from openmav.conditions import Condition, ConditionError, Value, parse
from openmav.record import ModelInfo, Step
from openmav.view import View

KEPT = 64  # values that are remembered of a step


@dataclass(frozen=True)
class _Known:
    """A value, and what it was read from: the steps back from its own as far as the condition reads, and the model."""

    value: Value
    read: tuple[weakref.ref[Step], ...]
    info: weakref.ref[ModelInfo] | None

    def fits(self, read: Sequence[Step], info: ModelInfo | None) -> bool:
        same_model = info is None if self.info is None else self.info() is info
        return same_model and len(read) == len(self.read) and all(ref() is step for ref, step in zip(self.read, read))


_values: dict[int, dict[str, _Known]] = {}  # {id of a step: {text of a condition: its value}}; gone with the step


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
    result = _parsed(text)
    if isinstance(result, ConditionError):
        return Watched(text, stops, None, result.why)
    try:
        if size is not None:
            result.fits(*size)
    except ConditionError as error:
        return Watched(text, stops, None, error.why)
    return Watched(text, stops, result)


def value_at(condition: Condition, steps: Sequence[Step], info: ModelInfo | None, index: int) -> Value:
    """The value at a token, remembered as long as all steps that it was read from are those of `steps`."""
    step = steps[index]
    read = tuple(steps[max(0, index - condition.reach) : index + 1])
    values = _values.get(id(step)) or _new_values(step)
    known = values.get(condition.text)
    if known is None or not known.fits(read, info):
        if len(values) >= KEPT:
            values.clear()
        refs = tuple(weakref.ref(one) for one in read)
        known = _Known(condition.value(step, info, steps), refs, None if info is None else weakref.ref(info))
        values[condition.text] = known
    return known.value


def _new_values(step: Step) -> dict[str, _Known]:
    """A place for the values of a step, which goes with it."""
    values = _values[id(step)] = {}
    weakref.finalize(step, _values.pop, id(step), None).atexit = False
    return values


def held(view: View, index: int) -> tuple[str, ...]:
    """The breakpoints that hold at a token."""
    return tuple(one.text for one in watched(view) if one.stops and one.value(view, index) is True)
