"""The page's own code without what only a reader of the repository needs: indentation, comments, and spaces."""

from __future__ import annotations

import re

COMMENTS = ("// ", "/* ")
QUOTES = "\"'`"
TEXT_OR_COMMENT = re.compile(f"[{QUOTES}]| +// [^\n]*")
OPEN = re.compile(r"([;{,(\[])\n")  # no statement ends here
AROUND = re.compile(r" ?([=*%<>!&|?:;,(){}\[\]]) ?|(?<=[\w)\]]) ([-+/]) (?=[\w(])")  # a + +b keeps its spaces


def lines(text: str) -> str:
    """Without indentation and comments on lines of their own."""
    stripped = map(str.strip, text.splitlines())
    return "\n".join(line for line in stripped if line and not line.startswith(COMMENTS))


def style(css: str) -> str:
    """In CSS no string has a space in it that counts, and spaces around + and - stay."""
    return re.sub(r": ", ":", re.sub(r"\s*([{};,])\s*", r"\1", lines(css)))


def script(js: str) -> str:
    """Texts stay as they are; newlines stay where a statement may end at them."""
    js, parts, code, at = lines(js), [], "", 0
    while match := TEXT_OR_COMMENT.search(js, at):
        code += js[at : match.start()]
        at = match.end()
        if match[0] in QUOTES:
            at = _end(js, match.start())
            parts += [_code(code), js[match.start() : at]]
            code = ""
    return "".join([*parts, _code(code + js[at:])])


def _code(js: str) -> str:
    """Code without a text in it."""
    return OPEN.sub(r"\1", AROUND.sub(r"\1\2", js))


def _end(js: str, at: int) -> int:
    """Where the text that begins here ends; a template may have code in it, and texts in that."""
    quote, at = js[at], at + 1
    while js[at] != quote:
        at = _closed(js, at + 2) if quote == "`" and js.startswith("${", at) else at + 1 + (js[at] == "\\")
    return at + 1


def _closed(js: str, at: int) -> int:
    """Behind the brace that closes the one before here."""
    while js[at] != "}":
        at = _end(js, at) if js[at] in QUOTES else _closed(js, at + 1) if js[at] == "{" else at + 1
    return at + 1
