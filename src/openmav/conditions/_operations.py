"""The nodes of a parsed condition that compute: reductions, the same at another moment, signs and logic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openmav.conditions._tree import AND, MINUS, NOT, OR, PRODUCT, SUM, Kind, Node
from openmav.conditions._values import ELSEWHERE, REDUCE, Moment, Numbers, Value


@dataclass(frozen=True)
class Reduce(Node):
    """max, min or mean of numbers, and abs of one."""

    name: str
    of: tuple[Node, ...]
    kind = "number"

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.of

    def value(self, moment: Moment) -> Value:
        result = [part.numbers(moment) if self.name != "abs" else Node.numbers(part, moment) for part in self.of]
        known = [numbers for numbers in result if numbers is not None]
        if len(known) < len(result):
            return None
        with np.errstate(all="ignore"):
            return float(REDUCE[self.name][0](np.concatenate(known)))

    def show(self) -> str:
        return f"{self.name}({', '.join(part.show() for part in self.of)})"


@dataclass(frozen=True)
class Elsewhere(Node):
    """previous(...) and untouched(...): the same at another moment."""

    name: str
    of: Node

    @property
    def kind(self) -> Kind:
        return self.of.kind

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.of,)

    def reach(self) -> int:
        return super().reach() + (self.name == "previous")

    def value(self, moment: Moment) -> Value:
        other = ELSEWHERE[self.name][0](moment)
        return None if other is None else self.of.value(other)

    def numbers(self, moment: Moment) -> Numbers | None:
        other = ELSEWHERE[self.name][0](moment)
        return None if other is None else self.of.numbers(other)

    def show(self) -> str:
        return f"{self.name}({self.of.show()})"


@dataclass(frozen=True)
class Not(Node):
    of: Node
    kind = "truth"
    tight = NOT

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.of,)

    def value(self, moment: Moment) -> Value:
        value = self.of.value(moment)
        return None if value is None else not value

    def show(self) -> str:
        return f"not {self.of.inside(NOT)}"


@dataclass(frozen=True)
class Minus(Node):
    of: Node
    kind = "number"
    tight = MINUS

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.of,)

    def value(self, moment: Moment) -> Value:
        value = self.of.value(moment)
        return -value if isinstance(value, float) else None

    def show(self) -> str:
        return f"-{self.of.inside(MINUS)}"


@dataclass(frozen=True)
class Chain(Node):
    """Parts with signs of one strength between them, worked out from the left: a + b - c, a and b and c."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    strength: int

    @property
    def kind(self) -> Kind:
        return "number" if self.strength in (SUM, PRODUCT) else "truth"

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.first, *(part for _, part in self.rest))

    @property
    def tight(self) -> int:
        return self.strength

    def value(self, moment: Moment) -> Value:
        if self.strength in (OR, AND):
            return self._logic(moment)
        value = self.first.value(moment)
        for sign, part in self.rest:
            other = part.value(moment)
            value = None if value is None or other is None else _SIGNS[sign](value, other)
        return value

    def _logic(self, moment: Moment) -> Value:
        decides, known = self.strength == OR, True
        for part in self.parts:
            value = part.value(moment)
            if value is decides:
                return decides
            known = known and value is not None
        return not decides if known else None

    def show(self) -> str:
        first = self.first.inside(self.strength + 1)
        return first + "".join(f" {sign} {part.inside(self.strength + 1)}" for sign, part in self.rest)


def _compared(compare: Callable[[Value, Value], bool]) -> Callable[[Value, Value], Value]:
    """A comparison that is unknown where one side is a NaN."""

    def value(a: Value, b: Value) -> Value:
        bad = any(isinstance(one, float) and math.isnan(one) for one in (a, b))
        return None if bad else bool(compare(a, b))

    return value


_SIGNS: dict[str, Callable[[Value, Value], Value]] = {
    "==": _compared(lambda a, b: a == b),
    "!=": _compared(lambda a, b: a != b),
    "<": _compared(lambda a, b: a < b),  # type: ignore[operator]
    "<=": _compared(lambda a, b: a <= b),  # type: ignore[operator]
    ">": _compared(lambda a, b: a > b),  # type: ignore[operator]
    ">=": _compared(lambda a, b: a >= b),  # type: ignore[operator]
    "~": _compared(lambda a, b: b in a),  # type: ignore[operator]
    "+": lambda a, b: a + b,  # type: ignore[operator]
    "-": lambda a, b: a - b,  # type: ignore[operator]
    "*": lambda a, b: a * b,  # type: ignore[operator]
    "/": lambda a, b: a / b if b else None,  # type: ignore[operator]
}
