"""Whether a stream is a terminal, and which text is safe to write to one."""

from __future__ import annotations

import unicodedata
from typing import Any

JOINERS = "\u200c\u200d\u00ad"  # that scripts and emoji need, and the soft hyphen
ERASE_LINE = "\r\x1b[2K"  # back to the left edge, and nothing on the line


def is_terminal(stream: Any) -> bool:
    """Whether the stream is a terminal; False for a closed one."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def neutral(text: str) -> str:
    """The text with nothing that controls a terminal: control, escape and direction-changing characters become visible symbols.

    Newline and tab stay, and so do right-to-left scripts and the joiners that scripts and emoji need: nothing is measured
    in cells here.
    """
    return "".join(_symbol(char) if char not in "\n\t" and has_power(char) else char for char in text)


def has_power(character: str) -> bool:
    """Whether a terminal may do more with it than show it; true for newline and tab, false for joiners and the soft hyphen."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def write(stream: Any, text: str) -> None:
    """Writes the text and flushes; a character that the stream's encoding lacks is written as an escape such as \\u4e2d."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
