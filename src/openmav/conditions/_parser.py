"""From tokens to a tree, checked as far as that goes without a model: a parser by strength of the signs, of bounded depth.

condition:  or, and, not, one comparison (== != < <= > >= ~), + -, * /, - before a number, in the order of their strength
atom:       a number, "a text", (condition), name, name[1, 2] or name(...)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from openmav.conditions._errors import ConditionError
from openmav.conditions._lexer import WORDS, Token, tokens
from openmav.conditions._tree import (
    AND,
    COMPARE,
    OR,
    PRODUCT,
    SUM,
    Candidate,
    Cells,
    Chain,
    Elsewhere,
    Index,
    Kind,
    Lens,
    Minus,
    Node,
    Not,
    Plain,
    Reduce,
    Said,
)
from openmav.conditions._values import AXES, CANDIDATE, ELSEWHERE, LAYERED, LENS, NORMS, PLAIN, REDUCE
from openmav.plugins import registry
from openmav.record import measure_of

LONGEST, DEEPEST = 500, 32  # characters of a condition; things inside each other
SIGNS: dict[int, tuple[str, ...]] = {OR: ("or",), AND: ("and",), SUM: ("+", "-"), PRODUCT: ("*", "/")}
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "~")
CLOSING = {"(": ")", "[": "]"}
_KINDS: dict[Kind, str] = {
    "number": "a number",
    "text": "a text",
    "truth": "true or false",
    "numbers": "several numbers",
    "either": "a number",
}


def known_names() -> list[str]:
    """All names that a condition may begin with, in the order of the documentation, measures last."""
    own = [*PLAIN, *CANDIDATE, LENS, *LAYERED, *REDUCE, *ELSEWHERE]
    return own + [name for name in registry.names("measures") if name not in own]


def read(text: str) -> Node:
    """The tree of a condition. Raises ConditionError."""
    if len(text) > LONGEST:
        raise ConditionError(text, LONGEST, f"a condition has at most {LONGEST} characters, not {len(text)}")
    parser = _Parser(text)
    result = parser.condition()
    parser.end()
    if result.kind == "numbers":
        parser.several(result)
    return result


class _Parser:
    """The tokens of a text, and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.place = 0
        self.depth = 0

    @property
    def now(self) -> Token:
        return self.tokens[self.place]

    def taken(self, *signs: str) -> Token | None:
        """The token here where it is one of these signs, read over."""
        token = self.now
        if token.kind != "sign" or token.text not in signs:
            return None
        self.place += 1
        return token

    def fail(self, at: int, why: str) -> NoReturn:
        raise ConditionError(self.text, at, why)

    def end(self) -> None:
        if self.now.kind == "end":
            return
        if self.now.text in COMPARISONS:
            self.fail(self.now.column, "one comparison at a time; join two with and")
        self.fail(self.now.column, "and, or, or the end of the condition is expected here")

    def inner(self, part: Callable[[], Node], at: int) -> Node:
        """One level deeper."""
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(at, f"more than {DEEPEST} things are inside each other here")
        result = part()
        self.depth -= 1
        return result

    # ---- signs, from the weakest ----

    def condition(self) -> Node:
        return self.chain(OR, lambda: self.chain(AND, self.negation, "truth"), "truth")

    def chain(self, strength: int, part: Callable[[], Node], kind: Kind) -> Node:
        """Parts with signs of this strength between them; the part alone where there is none."""
        first = part()
        rest: list[tuple[str, Node]] = []
        while sign := self.taken(*SIGNS[strength]):
            if not rest:
                self.want(first, kind, sign.text)
            other = part()
            self.want(other, kind, sign.text)
            rest.append((sign.text, other))
        return Chain(first, tuple(rest), strength, at=first.at) if rest else first

    def negation(self) -> Node:
        sign = self.taken("not")
        if sign is None:
            return self.comparison()
        of = self.inner(self.negation, sign.column)
        self.want(of, "truth", "not")
        return Not(of, at=sign.column)

    def comparison(self) -> Node:
        left = self.sum()
        sign = self.taken(*COMPARISONS)
        if sign is None:
            return left
        right = self.sum()
        if sign.text in ("==", "!="):
            self.single(left)
            self.want(right, left.kind, f"{sign.text} and {_KINDS[left.kind]}")
        else:
            for side in (left, right):
                self.want(side, "text" if sign.text == "~" else "number", sign.text)
        return Chain(left, ((sign.text, right),), COMPARE, at=left.at)

    def sum(self) -> Node:
        return self.chain(SUM, lambda: self.chain(PRODUCT, self.signed, "number"), "number")

    def signed(self) -> Node:
        sign = self.taken("-")
        if sign is None:
            return self.atom()
        of = self.inner(self.signed, sign.column)
        self.want(of, "number", "-")
        return Minus(of, at=sign.column)

    # ---- what stands between the signs ----

    def atom(self) -> Node:
        token = self.now
        self.place += token.kind != "end"
        if token.kind == "number":
            return Said(token.value, at=token.column)
        if token.kind == "text":
            return Said(token.text, at=token.column)
        if token.kind == "name":
            return self.inner(lambda: self.named(token), token.column)
        if token.text == "(":
            result = self.inner(self.condition, token.column)
            self.close("(")
            return result
        if token.text in WORDS and self.place > 1:
            self.fail(token.column, f"something is missing before '{token.text}', or it needs parentheses around it")
        return self.fail(token.column, "a name, a number, a text in quotes or ( is expected here")

    def named(self, name: Token) -> Node:
        message, at = name.text, name.column
        if message in PLAIN:
            if self.now.text in CLOSING and self.now.kind == "sign":
                self.fail(self.now.column, f"'{message}' takes nothing in brackets")
            return Plain(message, at=at)
        if message in CANDIDATE:
            return Candidate(message, self.argument(name, "text") if self.opens() else None, at=at)
        if message in REDUCE:
            return Reduce(message, self.several_numbers(name), at=at)
        if message in ELSEWHERE:
            of = self.argument(name, None)
            return Elsewhere(message, of, at=at)
        if message == LENS:
            layers = self.indices(name, 1)
            if not layers:
                self.fail(name.column, "lens needs a layer, such as lens[8], or lens[-1] for the last")
            return Lens(layers[0], at=at)
        return self.layered(name) if message in LAYERED else self.measure(name)

    def opens(self) -> bool:
        return self.now.kind == "sign" and self.now.text in CLOSING

    def open(self, name: Token) -> str:
        sign = self.taken(*CLOSING)
        return sign.text if sign else self.fail(self.now.column, f"'{name.text}' needs brackets: {name.text}(...)")

    def close(self, opened: str) -> None:
        if self.taken(CLOSING[opened]) is None:
            more = " (it takes no more)" if self.now.text == "," else ""
            self.fail(self.now.column, f"'{CLOSING[opened]}' is expected here{more}")

    def argument(self, name: Token, kind: Kind | None) -> Node:
        opened = self.open(name)
        result = self.condition()
        if kind is not None:
            self.want(result, kind, name.text)
        self.close(opened)
        return result

    def several_numbers(self, name: Token) -> tuple[Node, ...]:
        """The arguments of max: numbers, or what stands for several."""
        opened = self.open(name)
        result = [self.condition()]
        while name.text != "abs" and self.taken(","):
            result.append(self.condition())
        for part in result:
            if part.kind != "numbers" or name.text == "abs":
                self.want(part, "number", name.text)
        self.close(opened)
        return tuple(result)

    def layered(self, name: Token) -> Node:
        array, takes, more, _ = LAYERED[name.text]
        word = ""
        if name.text == "norm":
            opened = self.open(name)
            word, array = self.norm_word()
            places = self.more_indices(takes) if self.taken(",") else ()
            self.close(opened)
        else:
            places = self.indices(name, takes)
        return Cells(name.text, array, word, places, more, at=name.column)

    def norm_word(self) -> tuple[str, str]:
        token = self.now
        if token.kind != "name" or token.text not in NORMS:
            self.fail(token.column, f"a norm is of {', '.join(NORMS)}, such as norm(mlp, 3)")
        self.place += 1
        return token.text, NORMS[token.text]

    def measure(self, name: Token) -> Node:
        """A measure of the registry, or a part of one."""
        if measure_of(name.text) not in registry.names("measures"):
            self.fail(name.column, registry.unknown("name", name.text, known_names()))
        parts = [array for array in AXES if measure_of(array) == measure_of(name.text)]
        if parts and name.text not in parts:
            self.fail(name.column, registry.unknown("part", name.text, parts))
        axes = AXES.get(name.text)
        return Cells(name.text, name.text, "", self.indices(name, 9 if axes is None else len(axes)), at=name.column)

    def indices(self, name: Token, most: int) -> tuple[Index, ...]:
        """The indices in brackets after a name; none where there are no brackets."""
        if not self.opens():
            return ()
        opened = self.open(name)
        result = self.more_indices(most)
        self.close(opened)
        return result

    def more_indices(self, most: int) -> tuple[Index, ...]:
        result = [self.index()]
        while len(result) < most and self.taken(","):
            result.append(self.index())
        return tuple(result)

    def index(self) -> Index:
        began, minus = self.now.column, self.taken("-")
        token = self.now
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 9:
            self.fail(began, "a whole number counted from 0 is expected here; -1 is the last")
        self.place += 1
        return Index(-int(token.text) if minus else int(token.text), began)

    # ---- kinds ----

    def single(self, part: Node) -> None:
        if part.kind == "numbers":
            self.several(part)

    def several(self, part: Node) -> NoReturn:
        shown = part.show()
        self.fail(part.at, f"{shown} is several numbers; take max({shown}), min or mean, or name one")

    def want(self, part: Node, kind: Kind, by: str) -> None:
        """Raises ConditionError where a part is of another kind than what stands beside it needs."""
        self.single(part)
        if part.kind != kind and {part.kind, kind} != {"number", "either"}:
            self.fail(part.at, f"{part.show()} is {_KINDS[part.kind]}; {by} needs {_KINDS[kind]} here")
