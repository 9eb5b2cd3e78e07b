"""Words wrapped by cells, each character still knowing which token it came from.

The wrap starts at a fixed place and only grows at its end, so that lines that were written stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from openmav.paint.text import cells, pieces


class Glyph(NamedTuple):
    """One character with its marks, the cells it takes and the index of its token (-1: the prompt)."""

    text: str
    width: int
    token: int


Row: TypeAlias = Sequence[Glyph]
Chunk: TypeAlias = tuple[str, int]  # a text, and the index of its token

BLOCK = 256  # characters that are wrapped at a time, and kept wrapped
KEPT = 512  # blocks: two texts that fill a large screen


@lru_cache(maxsize=8192)
def _measured(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((piece, cells(piece)) for piece in pieces(text))


def wrap(chunks: Iterable[Chunk], width: int) -> list[Row]:
    """Rows of at most `width` cells, broken at spaces where there are any.

    The last cell is kept for a space or a newline (shown as ⏎) that hangs over, so that none of them is lost.
    """
    rows: list[Row] = []
    last: tuple[Glyph, ...] = ()
    for block in _blocks(chunks):
        whole, last = _wrapped(block, last, max(width - 1, 2))
        rows += whole
    return [*rows, last]


def _blocks(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    """The chunks in blocks that stay as they are while the text grows at its end."""
    block: list[Chunk] = []
    length = 0
    for chunk in chunks:
        block.append(chunk)
        length += len(chunk[0])
        if length >= BLOCK:
            yield tuple(block)
            block, length = [], 0
    if block:
        yield tuple(block)


@lru_cache(maxsize=KEPT)
def _wrapped(block: tuple[Chunk, ...], begun: tuple[Glyph, ...], room: int) -> tuple[tuple[Row, ...], tuple[Glyph, ...]]:
    """The rows that a block fills after a row that was begun, and the row that it leaves unfinished."""
    rows: list[Row] = []
    row, used = list(begun), sum(glyph.width for glyph in begun)
    for text, token in block:
        for piece, width in _measured(text):
            if piece == "\n":
                rows.append((*row, Glyph("⏎", 1, token)))
                row, used = [], 0
                continue
            if used + width > room:
                if piece == " ":
                    if used == room:
                        row.append(Glyph(piece, width, token))
                        used += 1
                    continue
                word = _carry(row)
                rows.append(tuple(row))
                row, used = word, sum(glyph.width for glyph in word)
            row.append(Glyph(piece, width, token))
            used += width
    return tuple(rows), tuple(row)


def _carry(row: list[Glyph]) -> list[Glyph]:
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
