"""Which part of a long text a panel shows: the newest pieces, within a limit of characters."""

from __future__ import annotations

from collections.abc import Sequence

from openmav.paint import printable, visible
from openmav.paint.wrap import Glyph, Row
from openmav.record import Step
from openmav.view import View

NOWHERE = -(10**9)  # the token of what stands for hidden text


def piece(step: Step, cursor: bool) -> str:
    """What a step shows: its text; a mark where it has none yet but stands under the cursor; a special token by its name."""
    if step.text:
        return printable(step.text)
    return visible(step.token) if step.special else "…" if cursor else ""


def newest(pieces: Sequence[str], characters: int | None) -> tuple[tuple[str, ...], bool]:
    """The last pieces with so many characters, all where that is None; was something left out."""
    kept: list[str] = []
    left = characters if characters is not None else sum(map(len, pieces)) * 16 + 1
    for one in reversed(pieces):
        if left <= 0:
            return tuple(kept[::-1]), True
        shown = printable(one)
        kept.append(shown[-left:])
        left -= len(shown)
    return tuple(kept[::-1]), left < 0


def first_allowed(view: View, first: int, last: int) -> int:
    """The first of the steps `first` to `last` that lies whole within the limit of the newest text; `first` if all do.

    A cursor that went back further than that keeps its token and all after it.
    """
    left = 0 if view.maximised else view.options.limit_chars
    if left <= 0:
        return first
    for token in range(last - 1, first - 1, -1):
        left -= len(piece(view.steps[token], token == view.cursor))
        if left < 0:
            return min(token + 1, max(view.cursor, first))
    return first


def without_before(rows: list[Row], allowed: int) -> list[Row]:
    """The rows from the first character of the token `allowed` on."""
    for at, row in enumerate(rows):
        for place, glyph in enumerate(row):
            if glyph.token >= allowed:
                return [_blanked(row, place), *rows[at + 1 :]]
    return rows[-1:]


def _blanked(row: Row, upto: int) -> Row:
    """The row with its first characters hidden: an ellipsis and blanks keep the others where they are."""
    if upto <= 0:
        return row
    blank = sum(glyph.width for glyph in row[:upto])
    return [Glyph(" " * (blank - 1) + "…", blank, NOWHERE), *row[upto:]]
