"""Tokens of the generated text to go to: those where a searched text begins, and those that surprised the model."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from openmav.paint import printable, visible
from openmav.record import Step

SURPRISING = 3.0  # nats of surprisal from which on a token is surprising: a chance of 1 in 20
SPACE = re.compile(r"\s")


def matches(steps: Sequence[Step], text: str) -> list[int]:
    """The indexes of the tokens in which the text begins, whatever its case and however its accents are composed.

    The text may go on over any number of tokens. A line break counts as a space. "" is nowhere.
    """
    return list(dict.fromkeys(first for first, _ in _spans(steps, text)))


def hit_tokens(steps: Sequence[Step], text: str) -> set[int]:
    """The indexes of all tokens that have a part of it."""
    return {at for first, last in _spans(steps, text) for at in range(first, last + 1)}


def _spans(steps: Sequence[Step], text: str) -> list[tuple[int, int]]:
    """(the index of the token in which the text begins, of that in which it ends) wherever it is."""
    wanted = _folded(printable(text))
    if not wanted:
        return []
    parts, starts, length = [], [], 0  # where each token begins in the whole text
    for step in steps:
        part = _folded(_shown(step))
        parts.append(part)
        starts.append(length)
        length += len(part)
    whole, at, result = "".join(parts), -1, list[tuple[int, int]]()
    while (at := whole.find(wanted, at + 1)) >= 0:
        end = at + len(wanted)
        if not (end < length and unicodedata.combining(whole[end])):
            result.append((bisect_right(starts, at) - 1, bisect_left(starts, end) - 1))
    return result


def is_in(whole: str, text: str) -> bool:
    """Whether the text is anywhere in another, compared in the same way."""
    return _folded(printable(text)) in _folded(printable(whole))


def surprising(steps: Sequence[Step]) -> list[int]:
    """The indexes of the tokens with a surprisal of at least SURPRISING nats."""
    return [at for at, step in enumerate(steps) if step.surprisal >= SURPRISING]


def neighbour(indexes: Sequence[int], cursor: int, by: int) -> int:
    """The place in `indexes`, which is sorted and not empty, of the next one after the cursor (`by` 1) or before it (-1).

    After the last comes the first, before the first the last.
    """
    place = bisect_right(indexes, cursor) if by > 0 else bisect_left(indexes, cursor) - 1
    return place % len(indexes)


def _shown(step: Step) -> str:
    """The text of a step as the text panel shows it."""
    return printable(step.text) if step.text else visible(step.token) if step.special else ""


def _folded(text: str) -> str:
    """Without differences of case, of composed and decomposed characters, and of white space."""
    return SPACE.sub(" ", unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold()))
