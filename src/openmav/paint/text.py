"""Text that a model or a user wrote, made safe for a terminal and measured in cells.

No control, escape or direction character ever reaches the terminal: it is shown as a symbol, so that nothing disappears and
nothing can move the cursor or turn a line around.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from rich.cells import cell_len

from openmav.system import terminal
from openmav.system.terminal import has_power, picture

JOINERS = frozenset(f"{terminal.JOINERS}\ufe0e\ufe0f")  # they only affect how neighbours are drawn; terminals disagree on their width
DOTTED_CIRCLE = "\u25cc"  # carries a combining mark without a base character
VISIBLE_SPACE, VISIBLE_NEWLINE, VISIBLE_TAB = "·", "⏎", "⇥"
CONTROL_NAMES = (  # of U+0000 to U+001F, as ISO 646 has them
    *("NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI"),
    *("DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US"),
)
_NAMED = {chr(code): f"<{name}>" for code, name in enumerate(CONTROL_NAMES)} | {"\x7f": "<DEL>"}
_NAMED |= {" ": VISIBLE_SPACE, "\n": VISIBLE_NEWLINE, "\t": VISIBLE_TAB, "\u00a0": "⍽"}


@lru_cache(maxsize=8192)
def cells(text: str) -> int:
    """The width of the text in a terminal, in cells."""
    return len(text) if text.isascii() else int(cell_len(text))


@lru_cache(maxsize=4096)
def _symbol(char: str) -> str:
    """The character itself where it is harmless, else a symbol that names it."""
    if 0xD800 <= ord(char) <= 0xDFFF:
        return "\ufffd"
    unknown = unicodedata.category(char) in ("Co", "Cn")  # no font is sure to have them
    return picture(char) or (f"⟨{ord(char):04X}⟩" if has_power(char) or unknown else char)


@lru_cache(maxsize=8192)
def printable(text: str) -> str:
    """Running text: newlines stay, tabs become four spaces, controls become symbols, joiners go."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(char if char == "\n" else _symbol(char) for char in text if char not in JOINERS)


@lru_cache(maxsize=8192)
def visible(text: str) -> str:
    """One token on its own: every character shows, spaces and newlines too, control characters by their names."""
    shown = "".join(_NAMED.get(char) or (f"⟨{ord(char):04X}⟩" if char in JOINERS else _symbol(char)) for char in text)
    if shown and (unicodedata.combining(shown[0]) or cells(shown[0]) == 0):
        return DOTTED_CIRCLE + shown
    return shown or "∅"


@lru_cache(maxsize=1024)
def without_power(text: str) -> str:
    """The last filter before a terminal: replaces unsafe characters that remain, without changing the width in cells."""
    return text if text.isprintable() else "".join("?" * cells(char) if has_power(char) else char for char in text)


def one_line(text: str) -> str:
    """A message or a name, safe and on one line."""
    return " ".join(printable(text).split())


def pieces(text: str) -> Iterator[str]:
    """The characters of a text, each with its zero-width marks."""
    piece = ""
    for char in text:
        if piece and cells(char) == 0 and char != "\n":
            piece += char
            continue
        if piece:
            yield piece
        piece = char
    if piece:
        yield piece


def fit(text: str, width: int, align: str = "<") -> str:
    """The text in exactly `width` cells: padded (align "<" or ">"), or cut with an ellipsis."""
    have = cells(text)
    if have > width:
        text = _cut(text, width - 1) + "…" if width > 0 else ""
        have = cells(text)
    gap = " " * (width - have)
    return gap + text if align == ">" else text + gap


def _cut(text: str, width: int) -> str:
    kept, used = "", 0
    for piece in pieces(text):
        used += cells(piece)
        if used > width:
            break
        kept += piece
    return kept
