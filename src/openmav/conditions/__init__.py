"""Conditions: a small safe language for breakpoints and watches over one Step, such as `entropy > 4` or `lens[8] != lens[-1]`.

docs/conditions.md is its reader's description. A text is parsed here and never run as code; whatever it says, the only error is a
ConditionError, which is a UsageError of one line that names the spot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from openmav.conditions._complete import Completion, completions
from openmav.conditions._errors import ConditionError
from openmav.conditions._operations import Chain
from openmav.conditions._parser import known_names, read
from openmav.conditions._syntax import DEEPEST, LONGEST, quoted
from openmav.conditions._tree import COMPARE, Cells, Index, Kind, Lens, Node, Plain, Said
from openmav.conditions._values import Moment, Value
from openmav.record import ModelInfo, Step

__all__ = [
    "DEEPEST",
    "LONGEST",
    "Completion",
    "Condition",
    "ConditionError",
    "Value",
    "completions",
    "known_names",
    "parse",
    "parse_breakpoint",
    "said",
]
UNKNOWN = "–"
WHOLE = frozenset({"token_id", "index", "position", "rank", "seed", "top_k", "cache_size"})  # numbers without decimals


@dataclass(frozen=True)
class Condition:
    """A text that was understood. `kind` is "truth" for what holds or not, else it is a value to watch.

    `needs` are the measures that must be computed for it.
    """

    text: str
    tree: Node = field(repr=False)

    @property
    def kind(self) -> Kind:
        return self.tree.kind

    @property
    def needs(self) -> frozenset[str]:
        return self.tree.needs()

    @property
    def reach(self) -> int:
        """How many tokens back it reads values of: 1 for `previous(entropy)`; the texts of all earlier tokens don't count."""
        return self.tree.reach()

    def value(self, step: Step, info: ModelInfo | None = None, steps: Sequence[Step] = ()) -> Value:
        """What it is worth at a step; None is unknown. `steps` are those of the run, for `text` and `previous`."""
        return self.tree.value(Moment(step, info, steps))

    def holds(self, step: Step, info: ModelInfo | None = None, steps: Sequence[Step] = ()) -> bool:
        """Whether it is true there; what is unknown does not hold."""
        return self.value(step, info, steps) is True

    def measured(self, step: Step, info: ModelInfo | None = None, steps: Sequence[Step] = ()) -> str:
        """What it looked at, such as "5.12" for `entropy > 4`; "" where it looks at no value."""
        moment = Moment(step, info, steps)
        return ", ".join(said(part.value(moment), whole(part)) for part in _looked_at(self.tree))

    def shown(self, step: Step, info: ModelInfo | None = None, steps: Sequence[Step] = ()) -> str:
        """Its value for a reader: a number, a text in quotes, yes or no, or – for unknown."""
        return said(self.value(step, info, steps), whole(self.tree))

    def check(self, info: ModelInfo) -> None:
        """Raises ConditionError where it names a layer or a head that the model does not have."""
        self.fits(info.layers, info.heads)

    def fits(self, layers: int, heads: int) -> None:
        """The same for a model of so many layers and heads."""
        for node in self.tree.walk():
            if isinstance(node, Lens):
                self._check(node.layer, "layer", layers)
            elif isinstance(node, Cells):
                for index, axis in node.layers():
                    self._check(index, axis, {"layer": layers, "head": heads}.get(axis))

    def _check(self, index: Index, axis: str, count: int | None) -> None:
        if count is not None and not -count <= index.place < count:
            raise ConditionError(self.text, index.at, f"this model has no such {axis}: it has 0 to {count - 1}" if count else f"no {axis}s")

    def __str__(self) -> str:
        """The text as mav writes it; parsed again, it means the same."""
        return self.tree.show()


def parse(text: str) -> Condition:
    """What a text means: a condition, or a value to watch. Raises ConditionError."""
    return Condition(text, read(text))


def parse_breakpoint(text: str) -> Condition:
    """A condition that holds or not. Raises ConditionError, for a value as well."""
    result = parse(text)
    if result.kind != "truth":
        example = 'token ~ "a"' if result.kind == "text" else f"{result.tree.show()} > 4"
        raise ConditionError(text, 0, f"this is a value to watch, not a condition to stop at; compare it, such as {example}")
    return result


def whole(part: Node) -> bool:
    """Whether its numbers have no decimals."""
    return getattr(part, "name", "") in WHOLE or getattr(part, "array", "").endswith("ids")


def said(value: Value, whole: bool = False) -> str:
    """A value for a reader."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return quoted(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return _number(value, whole)


def _number(value: float, whole: bool) -> str:
    size = abs(value)
    if whole and value.is_integer():
        return f"{value:.0f}" if size < 1e15 else f"{value:.3g}"
    if size >= 1e6 or 0 < size < 0.0001:
        return f"{value:.2e}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 1 else 4}f}"


def _looked_at(node: Node) -> list[Node]:
    """The sides of its comparisons that are no fixed values, each once."""
    result: list[Node] = []
    for part in node.walk():
        if isinstance(part, Chain) and part.strength == COMPARE:
            result += [side for side in part.parts if any(not isinstance(leaf, Said) for leaf in _leaves(side))]
    return list(dict.fromkeys(result))


def _leaves(node: Node) -> list[Node]:
    return [part for part in node.walk() if not part.parts or isinstance(part, Plain)]
