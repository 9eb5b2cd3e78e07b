"""A parsed condition: nodes that know their kind, what they need, how they are written, and their value at a moment; here what is read.

The logic has three values: what is unknown, or a NaN, holds in no comparison, and `not` of it is unknown as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from openmav.conditions._syntax import quoted
from openmav.conditions._values import AXES, CANDIDATE, LAYERED, MEANS, PLAIN, Moment, Numbers, Value, lens_text
from openmav.record import measure_of

Kind: TypeAlias = Literal["number", "text", "truth", "numbers", "either"]  # either: of somebody's own measure, one number or several
OR, AND, NOT, COMPARE, SUM, PRODUCT, MINUS, ATOM = range(8)  # how tightly a node holds together


@dataclass(frozen=True)
class Node:
    """A part of a condition. `at` is its column, which is no part of what it means."""

    at: int = field(compare=False, kw_only=True, default=0)

    @property
    def kind(self) -> Kind:
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Node, ...]:
        """What it is made of."""
        return ()

    @property
    def tight(self) -> int:
        return ATOM

    def needs(self) -> frozenset[str]:
        """The measures that it reads."""
        return frozenset().union(*(part.needs() for part in self.parts))

    def value(self, moment: Moment) -> Value:
        raise NotImplementedError

    def numbers(self, moment: Moment) -> Numbers | None:
        """All numbers of it, one where it is a number; None where that is unknown."""
        value = self.value(moment)
        return None if value is None or isinstance(value, str) else np.array([float(value)])

    def reach(self) -> int:
        """How many tokens back it reads values of."""
        return max((part.reach() for part in self.parts), default=0)

    def show(self) -> str:
        raise NotImplementedError

    def inside(self, tight: int) -> str:
        """How it is written as a part of something that holds together so tightly."""
        return self.show() if self.tight >= tight else f"({self.show()})"

    def walk(self) -> Iterator[Node]:
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(frozen=True)
class Said(Node):
    """A number or a text that is written there."""

    said: float | str

    @property
    def kind(self) -> Kind:
        return "text" if isinstance(self.said, str) else "number"

    def value(self, moment: Moment) -> Value:
        return self.said

    def show(self) -> str:
        if isinstance(self.said, str):
            return quoted(self.said)
        return str(int(self.said)) if self.said.is_integer() and self.said < 1e15 else repr(self.said)


@dataclass(frozen=True)
class Plain(Node):
    """A name of the step: entropy, token, nan."""

    name: str

    @property
    def kind(self) -> Kind:
        return PLAIN[self.name][0]  # type: ignore[return-value]

    def value(self, moment: Moment) -> Value:
        return PLAIN[self.name][1](moment)

    def show(self) -> str:
        return self.name


@dataclass(frozen=True)
class Candidate(Node):
    """prob: of the chosen token; prob("Paris"): of a candidate with this text."""

    name: str
    text: Node | None = None
    kind = "number"

    @property
    def parts(self) -> tuple[Node, ...]:
        return () if self.text is None else (self.text,)

    def value(self, moment: Moment) -> Value:
        text = None if self.text is None else self.text.value(moment)
        if self.text is not None and text is None:
            return None
        row = moment.row(None if text is None else str(text))
        return None if row is None else CANDIDATE[self.name][0](moment, row)

    def show(self) -> str:
        return self.name if self.text is None else f"{self.name}({self.text.show()})"


@dataclass(frozen=True)
class Lens(Node):
    """lens[3]: what a layer predicts."""

    layer: Index
    kind = "text"

    def needs(self) -> frozenset[str]:
        return frozenset({"logit_lens"})

    def value(self, moment: Moment) -> Value:
        return lens_text(moment, self.layer.place)

    def show(self) -> str:
        return f"lens[{self.layer.place}]"


@dataclass(frozen=True)
class Index:
    """A layer, head or place as it is written; below 0 from the end."""

    place: int
    at: int = field(compare=False)


@dataclass(frozen=True)
class Cells(Node):
    """Numbers of an array: norm(mlp, 3), attention_entropy(3), mlp_norm[3]; several where indices are left out."""

    name: str  # as it is written
    array: str
    word: str = ""  # mlp, of norm(mlp, 3)
    places: tuple[Index, ...] = ()
    more: tuple[int, ...] = ()  # indices that the name stands for

    @property
    def axes(self) -> tuple[str, ...] | None:
        """What the indices count; None where that is not known."""
        return AXES.get(self.array)

    @property
    def kind(self) -> Kind:
        axes = self.axes
        if axes is None:
            return "either"
        left = axes[len(self.places) :][: len(axes) - len(self.places) - len(self.more)]
        means = self.array in MEANS and len(self.places) == 1
        return "number" if means or not [axis for axis in left if axis != "one"] else "numbers"

    def needs(self) -> frozenset[str]:
        return frozenset({measure_of(self.array)})

    def value(self, moment: Moment) -> Value:
        result = self.numbers(moment)
        if result is None or (self.array in MEANS and len(self.places) != 1 and len(result) != 1):
            return None
        if self.array in MEANS:
            return float(np.mean(result))
        return float(result[0]) if len(result) == 1 else None

    def numbers(self, moment: Moment) -> Numbers | None:
        places = tuple(index.place for index in self.places)
        if self.more and not places:
            result = [moment.cells(self.array, (layer, *self.more)) for layer in range(self._rows(moment))]
            numbers = np.concatenate(result) if result else np.empty(0)
        else:
            numbers = moment.cells(self.array, places + self.more)
        return numbers if len(numbers) else None

    def _rows(self, moment: Moment) -> int:
        values = moment.step.values.get(self.array)
        return 0 if values is None else len(values)

    def show(self) -> str:
        inside = ", ".join([self.word] * bool(self.word) + [str(index.place) for index in self.places])
        if not inside:
            return self.name
        return f"{self.name}[{inside}]" if self.name not in LAYERED or self.name == "lens_prob" else f"{self.name}({inside})"

    def layers(self) -> Iterator[tuple[Index, str]]:
        """The indices that count layers or heads, and which of both."""
        yield from zip(self.places, self.axes or ())
