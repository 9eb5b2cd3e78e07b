"""From the text of a condition to Python's expression tree of the same shape.

Python's own parser says what belongs together, and nothing else. It never sees the text: each number, text and name is an x there,
brackets are round, and `~` is `in`, so nothing else that Python has gets in. What is wrong is found before, since the spots and
the words of Python's own syntax errors differ from version to version.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

from openmav.conditions._errors import ConditionError

LONGEST, DEEPEST = 500, 32  # characters of a condition; things inside each other
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "~")
_BETWEEN = (*COMPARISONS, "+", "-", "*", "/")
_CLOSING = {"(": ")", "x(": ")", "x[": "]"}  # what closes an open bracket: around anything, or after a name
_SPELLED = {"[": "(", "]": ")", "~": "in"}  # in Python
_INSTEAD = {"=": "write ==", "&": "write and", "|": "write or", "!": "write not, or !="}
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)
        |(?P<text>"([^"\\]|\\.)*"|'([^'\\]|\\.)*')|(?P<sign>[=!<>]=|[-<>~+*/()\[\],]|\Z))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:([nrt\\\"'])|u((?![dD][89a-fA-F])[0-9a-fA-F]{4}))?|[\ud800-\udfff]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True)
class Token:
    """A part of a condition as it is written: a number, name, text or sign. The sign "" is the end."""

    kind: str
    text: str
    column: int


def parse_shape(text: str) -> tuple[dict[int, Token], ast.expr]:
    """The tokens by their column in what Python's parser sees, and its tree. Raises ConditionError."""
    if len(text) > LONGEST:
        raise ConditionError(text, LONGEST, f"a condition has at most {LONGEST} characters, not {len(text)}")
    tokens = _tokens(text)
    _check(text, tokens)
    shape, at = "", {}
    for token in tokens:
        at[len(shape)] = token
        shape += f"{_SPELLED.get(token.text, token.text) if token.kind == 'sign' else 'x'} "
    return at, ast.parse(shape, mode="eval").body


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    end = 0
    while not tokens or tokens[-1].text:
        match = _TOKEN.match(text, end)
        if match is None:
            column = len(text) - len(text[end:].lstrip())
            quote = text[column] if text[column] in "\"'" else ""
            wrong = f"this text has no end; close it with {quote}" if quote else "no condition has this sign; a text stands in quotes"
            raise ConditionError(text, column, _INSTEAD.get(text[column], wrong))
        kind, end = str(match.lastgroup), match.end()
        if kind == "number" and (text[end : end + 1].isalnum() or text[end : end + 1] in ("_", ".")):
            raise ConditionError(text, match.start(kind), "this is neither a number nor a name")
        tokens.append(Token("sign" if match[kind] in ("and", "or", "not") else kind, match[kind], match.start(kind)))
    return tokens


def _check(text: str, tokens: list[Token]) -> None:
    """Raises ConditionError at the first token that can't stand where it is, and where too much is inside each other."""
    inside: list[str] = []  # what is open: brackets, and signs in front of a value
    before = Token("sign", "", 0)
    for token in tokens:
        sign = token.text if token.kind == "sign" else None
        if before.kind == "sign" and before.text not in (")", "]"):  # a value begins
            if len(inside) >= DEEPEST and (sign in ("(", "-", "not") or token.kind == "name"):
                raise ConditionError(text, token.column, f"more than {DEEPEST} things are inside each other here")
            if (sign == "not" and before.text in _BETWEEN) or (sign in ("and", "or") and before.text):
                raise ConditionError(text, token.column, f"something is missing before '{sign}', or it needs parentheses around it")
            if sign not in (None, "(", "-", "not"):
                raise ConditionError(text, token.column, "a name, a number, a text in quotes or ( is expected here")
            inside += [sign] if sign else []
        elif before.kind == "name" and sign in ("(", "["):
            inside.append(f"x{sign}")
        else:  # a value ended
            while inside and (inside[-1] == "-" or (inside[-1] == "not" and sign not in _BETWEEN)):
                inside.pop()
            closing = _CLOSING.get(inside[-1], "") if inside else ""
            if sign == closing:
                del inside[-1:]
            elif sign not in (*_BETWEEN, "and", "or") and not (sign == "," and inside and inside[-1] != "("):
                more = " (it takes no more)" if sign == "," else ""
                if before.kind == "name" and sign is None:
                    more = "; what a name takes stands in brackets, such as lens[8]"
                wanted = f"'{closing}'" if closing else "and, or, or the end of the condition"
                raise ConditionError(text, token.column, f"{wanted} is expected here{more}")
        before = token


def literal(text: str, token: Token) -> float | str:
    """What a number or a text says. Raises ConditionError."""
    if token.kind == "number":
        if math.isinf(value := float(token.text)):
            raise ConditionError(text, token.column, "a number is at most 1.8e308")
        return value

    def character(match: re.Match[str]) -> str:
        if not match[1] and not match[2]:
            known = "known after a backslash: n, r, t, \\, \", ' and u with four hexadecimal digits of a character"
            wrong = known if match[0] == "\\" else "this is no character of valid UTF-8"
            raise ConditionError(text, token.column + 1 + match.start(), wrong)
        return chr(int(match[2], 16)) if match[2] else _ESCAPES[match[1]]

    return _ESCAPE.sub(character, token.text[1:-1])


def quoted(text: str) -> str:
    """The text as it is written in a condition; read again, it is the same."""
    names = {ord(message): f"\\{char}" for char, message in _ESCAPES.items() if char != "'"}
    shown = text.translate(names)
    return '"' + "".join(char if char.isprintable() or ord(char) > 0xFFFF else f"\\u{ord(char):04x}" for char in shown) + '"'
