"""Words wrapped by cells, each character still knowing which token it came from.

The wrap starts at a fixed place and only grows at its end, so that lines that were written stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from openmav.paint.text import cells, pieces


class Glyph(NamedTuple):
    """One character with its marks, the cells it takes and the index of its token (-1: the prompt)."""

    text: str
    width: int
    token: int


Row: TypeAlias = list[Glyph]


@lru_cache(maxsize=8192)
def _measured(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((piece, cells(piece)) for piece in pieces(text))


def glyphs(chunks: Iterable[tuple[str, int]]) -> Iterable[Glyph]:
    """The characters of (text, token) chunks."""
    for text, token in chunks:
        for piece, width in _measured(text):
            yield Glyph(piece, width, token)


def wrap(chunks: Iterable[tuple[str, int]], width: int) -> list[Row]:
    """Rows of at most `width` cells, broken at spaces where there are any.

    The last cell is kept for a space or a newline (shown as ⏎) that hangs over, so that none of them is lost.
    """
    rows: list[Row] = [[]]
    used, room = 0, max(width - 1, 2)
    for glyph in glyphs(chunks):
        row = rows[-1]
        if glyph.text == "\n":
            row.append(Glyph("⏎", 1, glyph.token))
            rows.append([])
            used = 0
            continue
        if used + glyph.width > room:
            if glyph.text == " ":
                if used == room:
                    row.append(glyph)
                    used += 1
                continue
            rows.append(_carry(row))
            row, used = rows[-1], sum(one.width for one in rows[-1])
        row.append(glyph)
        used += glyph.width
    return rows


def _carry(row: Row) -> Row:
    """Takes the unfinished word off the end of a full row; nothing where the row is one long word or ends with a space."""
    for at in range(len(row) - 1, -1, -1):
        if row[at].text == " ":
            word = row[at + 1 :]
            del row[at + 1 :]
            return word
    return []


def wrap_words(text: str, width: int) -> list[str]:
    """The words of the text in rows of at most `width` cells; a word that is wider goes on in the next row."""
    words = " ".join(text.split())
    rows = wrap([(words, 0)], width + 1) if words else []
    return ["".join(glyph.text for glyph in row).rstrip() for row in rows]


def row_of(rows: Sequence[Row], token: int) -> int:
    """The last row that holds the token; the last of all where none does."""
    for at in range(len(rows) - 1, -1, -1):
        if any(glyph.token == token for glyph in rows[at]):
            return at
    return max(len(rows) - 1, 0)
