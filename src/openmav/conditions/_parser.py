"""From a condition's text to its nodes, checked as far as that goes without a model."""

from __future__ import annotations

import ast
from typing import NoReturn

from openmav.conditions._errors import ConditionError
from openmav.conditions._operations import Chain, Elsewhere, Minus, Not, Reduce
from openmav.conditions._syntax import COMPARISONS, Token, literal, parse_shape
from openmav.conditions._tree import AND, COMPARE, OR, PRODUCT, SUM, Candidate, Cells, Index, Kind, Lens, Node, Plain, Said
from openmav.conditions._values import AXES, CANDIDATE, ELSEWHERE, LAYERED, LENS, NORMS, PLAIN, REDUCE
from openmav.plugins import registry
from openmav.record import measure_of

_SIGNS: dict[type, tuple[str, int]] = {
    ast.Or: ("or", OR),
    ast.And: ("and", AND),
    ast.Add: ("+", SUM),
    ast.Sub: ("-", SUM),
    ast.Mult: ("*", PRODUCT),
    ast.Div: ("/", PRODUCT),
    ast.Eq: ("==", COMPARE),
    ast.NotEq: ("!=", COMPARE),
    ast.Lt: ("<", COMPARE),
    ast.LtE: ("<=", COMPARE),
    ast.Gt: (">", COMPARE),
    ast.GtE: (">=", COMPARE),
    ast.In: ("~", COMPARE),
}
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
    reader = _Reader(text)
    return reader.single(reader.node(reader.tree))


class _Reader:
    """Makes nodes of Python's expression tree."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at, self.tree = parse_shape(text)

    def fail(self, column: int, why: str) -> NoReturn:
        raise ConditionError(self.text, column, why)

    def token(self, tree: ast.expr) -> Token:
        """The first token of it, signs before it included."""
        return self.at[tree.col_offset]

    # ---- signs ----

    def node(self, tree: ast.expr) -> Node:
        token = self.token(tree)
        if isinstance(tree, ast.BoolOp):
            sign, strength = _SIGNS[type(tree.op)]
            return self.chain([(sign, value) for value in tree.values], strength, "truth")
        if isinstance(tree, ast.BinOp):
            strength, rest = _SIGNS[type(tree.op)][1], []
            while isinstance(tree, ast.BinOp) and _SIGNS[type(tree.op)][1] == strength:
                rest.append((_SIGNS[type(tree.op)][0], tree.right))
                tree = tree.left
            return self.chain([(rest[-1][0], tree), *reversed(rest)], strength, "number")
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
            return Not(self.want(self.node(tree.operand), "truth", "not"), at=token.column)
        if isinstance(tree, ast.UnaryOp):
            return Minus(self.want(self.node(tree.operand), "number", "-"), at=token.column)
        if isinstance(tree, ast.Compare):
            return self.comparison(tree)
        if token.kind == "name":
            return self.named(token, tree.args if isinstance(tree, ast.Call) else [])
        return Said(literal(self.text, token), at=token.column)

    def chain(self, parts: list[tuple[str, ast.expr]], strength: int, kind: Kind) -> Node:
        """Parts and the sign before each; the first one's is that after it."""
        (_, first), *rest = [(sign, self.want(self.node(part), kind, sign)) for sign, part in parts]
        return Chain(first, tuple(rest), strength, at=first.at)

    def comparison(self, tree: ast.Compare) -> Node:
        if len(tree.ops) > 1:
            end = tree.comparators[0].end_col_offset or 0
            second = next(token for at, token in self.at.items() if at >= end and token.text in COMPARISONS)
            self.fail(second.column, "one comparison at a time; join two with and")
        sign, left, right = _SIGNS[type(tree.ops[0])][0], self.node(tree.left), self.node(tree.comparators[0])
        if sign in ("==", "!="):
            self.want(right, self.single(left).kind, f"{sign} and {_KINDS[left.kind]}")
        else:
            for side in (left, right):
                self.want(side, "text" if sign == "~" else "number", sign)
        return Chain(left, ((sign, right),), COMPARE, at=left.at)

    # ---- what stands between the signs ----

    def named(self, name: Token, inside: list[ast.expr]) -> Node:
        """What a name with these things in brackets after it stands for."""
        word, at = name.text, name.column
        if word in PLAIN:
            if inside:
                self.fail(at + len(word), f"'{word}' takes nothing in brackets")
            return Plain(word, at=at)
        if word in CANDIDATE:
            return Candidate(word, *[self.want(self.node(one), "text", word) for one in self.most(inside, 1)], at=at)
        if (word in REDUCE or word in ELSEWHERE or word == "norm") and not inside:
            tokens = list(self.at.values())
            self.fail(tokens[tokens.index(name) + 1].column, f"'{word}' needs brackets: {word}(...)")
        if word in REDUCE:
            numbers = [self.node(one) for one in self.most(inside, 1 if word == "abs" else len(inside))]
            return Reduce(word, tuple(n if n.kind == "numbers" and word != "abs" else self.want(n, "number", word) for n in numbers), at=at)
        if word in ELSEWHERE:
            return Elsewhere(word, self.node(self.most(inside, 1)[0]), at=at)
        if word == LENS:
            if not inside:
                self.fail(at, "lens needs a layer, such as lens[8], or lens[-1] for the last")
            return Lens(*self.indices(inside, 1), at=at)
        if word == "norm":
            of = self.token(inside[0])
            if not isinstance(inside[0], ast.Name) or of.text not in NORMS:
                self.fail(of.column, f"a norm is of {', '.join(NORMS)}, such as norm(mlp, 3)")
            return Cells(word, NORMS[of.text], of.text, self.indices(self.most(inside, 2)[1:], 1), at=at)
        if word in LAYERED:
            array, most, more, _ = LAYERED[word]
            return Cells(word, array, "", self.indices(inside, most), more, at=at)
        return self.measure(name, inside)

    def measure(self, name: Token, inside: list[ast.expr]) -> Node:
        """A measure of the registry, or a part of one."""
        if measure_of(name.text) not in registry.names("measures"):
            self.fail(name.column, registry.unknown("name", name.text, known_names()))
        parts = [array for array in AXES if measure_of(array) == measure_of(name.text)]
        if parts and name.text not in parts:
            self.fail(name.column, registry.unknown("part", name.text, parts))
        return Cells(name.text, name.text, "", self.indices(inside, len(AXES.get(name.text, range(9)))), at=name.column)

    def most(self, inside: list[ast.expr], most: int) -> list[ast.expr]:
        """What is in brackets, where that is no more than so many things."""
        if len(inside) > most:
            comma = max(token.column for at, token in self.at.items() if token.text == "," and at < inside[most].col_offset)
            self.fail(comma, "')' is expected here (it takes no more)")
        return inside

    def indices(self, inside: list[ast.expr], most: int) -> tuple[Index, ...]:
        return tuple(self.index(one) for one in self.most(inside, most))

    def index(self, tree: ast.expr) -> Index:
        number = tree.operand if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub) else tree
        token = self.token(number)
        if not isinstance(number, ast.Name) or not token.text.isdigit() or len(token.text) > 9:
            self.fail(self.token(tree).column, "a whole number counted from 0 is expected here; -1 is the last")
        return Index(int(token.text) if number is tree else -int(token.text), self.token(tree).column)

    # ---- kinds ----

    def single(self, part: Node) -> Node:
        """The part. Raises ConditionError where it is several numbers."""
        if part.kind == "numbers":
            shown = part.show()
            self.fail(part.at, f"{shown} is several numbers; take max({shown}), min or mean, or name one")
        return part

    def want(self, part: Node, kind: Kind, by: str) -> Node:
        """The part. Raises ConditionError where it is of another kind than what stands beside it needs."""
        if self.single(part).kind != kind and {part.kind, kind} != {"number", "either"}:
            self.fail(part.at, f"{part.show()} is {_KINDS[part.kind]}; {by} needs {_KINDS[kind]} here")
        return part
