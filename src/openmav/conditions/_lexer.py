"""From the text of a condition to its tokens."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from openmav.conditions._errors import ConditionError

TokenKind: TypeAlias = Literal["number", "text", "name", "sign", "end"]
WORDS = ("and", "or", "not")
_NUMBER = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIGN = re.compile(r"==|!=|<=|>=|[<>~+\-*/()\[\],]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_INSTEAD = {"=": "==", "&": "and", "|": "or", "!": "not, or !="}


@dataclass(frozen=True)
class Token:
    """`text` is the name or sign as it is written, or what a quoted text says; `value` is a number's."""

    kind: TokenKind
    text: str
    column: int
    value: float = 0.0


def tokens(text: str) -> list[Token]:
    """All tokens, and one of the kind "end" after them. Raises ConditionError."""
    lexer = _Lexer(text)
    result = [lexer.next()]
    while result[-1].kind != "end":
        result.append(lexer.next())
    return result


class _Lexer:
    """A text, and how far it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def next(self) -> Token:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        began = self.at
        if began == len(self.text):
            return Token("end", "", began)
        if self.text[began] in "\"'":
            return Token("text", self._quoted(), began)
        if result := _NUMBER.match(self.text, began):
            return self._number(result[0])
        if result := _NAME.match(self.text, began) or _SIGN.match(self.text, began):
            self.at = result.end()
            name = result.re is _NAME and result[0] not in WORDS
            return Token("name" if name else "sign", result[0], began)
        instead = _INSTEAD.get(self.text[began])
        return self._fail(began, f"write {instead}" if instead else "no condition has this sign; a text stands in quotes")

    def _number(self, written: str) -> Token:
        began, self.at = self.at, self.at + len(written)
        if self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "_."):
            self._fail(began, "this is neither a number nor a name")
        value = float(written)
        if math.isinf(value):
            self._fail(began, "a number is at most 1.8e308")
        return Token("number", written, began, value)

    def _quoted(self) -> str:
        """What stands between two equal quotes; the place is after them."""
        began, quote = self.at, self.text[self.at]
        message: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == quote:
                return "".join(message)
            if 0xD800 <= ord(char) <= 0xDFFF:
                self._fail(self.at - 1, "this is no character of valid UTF-8")
            message.append(self._escaped() if char == "\\" else char)
        return self._fail(began, f"this text has no end; close it with {quote}")

    def _escaped(self) -> str:
        """The character that stands after a backslash."""
        began, char = self.at - 1, self.text[self.at : self.at + 1]
        self.at += 1
        if char in _ESCAPES:
            return _ESCAPES[char]
        result = re.compile(r"[0-9a-fA-F]{4}").match(self.text, self.at) if char == "u" else None
        if result is None or 0xD800 <= int(result[0], 16) <= 0xDFFF:
            self._fail(began, "known after a backslash: n, r, t, \\, \", ' and u with four hexadecimal digits of a character")
        self.at = result.end()
        return chr(int(result[0], 16))

    def _fail(self, column: int, why: str) -> NoReturn:
        raise ConditionError(self.text, column, why)


def quoted(text: str) -> str:
    """The text as it is written in a condition; read again, it is the same."""
    names = {ord(message): f"\\{char}" for char, message in _ESCAPES.items() if char != "'"}
    shown = text.translate(names)
    return '"' + "".join(char if char.isprintable() or ord(char) > 0xFFFF else f"\\u{ord(char):04x}" for char in shown) + '"'
