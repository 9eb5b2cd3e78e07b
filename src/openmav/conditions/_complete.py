"""The names that a condition may go on with, for whoever types one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from openmav.conditions._parser import known_names
from openmav.conditions._values import CANDIDATE, ELSEWHERE, LAYERED, LENS, NORMS, PLAIN, REDUCE
from openmav.errors import UsageError
from openmav.plugins import registry

_WORD = re.compile(r"[^\W\d][\w.]*\Z")
_TEXT = re.compile(r'"([^"\\]|\\.)*"|\'([^\'\\]|\\.)*\'', re.DOTALL)
_NORM = re.compile(r"(?<![\w.])norm\s*\(\s*\w*\Z")
_OPENED = {**dict.fromkeys(("norm", *REDUCE, *ELSEWHERE), "("), **dict.fromkeys((LENS, "lens_prob"), "[")}  # what they can't be without


@dataclass(frozen=True)
class Completion:
    """A name, what it is, and the text in place of the characters from `start` to the cursor."""

    name: str
    about: str
    text: str
    start: int

    def put(self, text: str, cursor: int) -> tuple[str, int]:
        """(the whole text with it, where the cursor is then)."""
        end = cursor
        while end < len(text) and re.match(r"[\w.]", text[end]):
            end += 1
        rest = text[end:]
        put = self.text[:-1] if rest.startswith(self.text[-1:]) and self.text != self.name else self.text
        return text[: self.start] + put + rest, self.start + len(self.text)


def completions(text: str, cursor: int) -> list[Completion]:
    """The names that go on from the word before the cursor: those that begin with it, then those that have it inside.

    None inside of a text in quotes, for no word, and where it is the only such name.
    """
    before = text[:cursor]
    if '"' in (rest := _TEXT.sub("", before)) or "'" in rest:
        return []
    word = _WORD.search(before)
    known = NORMS if _NORM.search(before) else None
    if word is None and known is None:
        return []
    typed, start = (word[0], word.start()) if word is not None else ("", cursor)
    names = _abouts() if known is None else {name: f"its norms: {measure}" for name, measure in NORMS.items()}
    hits = [name for name in names if typed.lower() in name]
    if hits == [typed]:
        return []
    hits.sort(key=lambda name: not name.startswith(typed.lower()))
    return [Completion(name, names[name], name if known else name + _OPENED.get(name, ""), start) for name in hits if name != typed]


def _abouts() -> dict[str, str]:
    """{name: what it is} of all names that a condition may begin with."""
    own = {name: row[-1] for table in (PLAIN, CANDIDATE, LAYERED, REDUCE, ELSEWHERE) for name, row in table.items()}
    own[LENS] = "lens[3]: the text of the token that layer 3 predicts"
    return {name: own.get(name) or _title(name) for name in known_names()}


def _title(measure: str) -> str:
    try:
        return f"measure: {registry.load('measures', measure).TITLE}"
    except UsageError:  # somebody else's that does not import
        return "measure that can't be loaded"
