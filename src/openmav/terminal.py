"""What a stream is, and what may be written to one where a person looks."""

from __future__ import annotations

import unicodedata
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Whether a person sits at this stream; False for a closed one."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def neutral(text: str) -> str:
    """The text without power over a terminal: control, escape and direction-changing characters become visible symbols.

    Newline and tab stay, and so do right-to-left scripts and the joiners that scripts and emoji need: nothing is measured
    in cells here.
    """
    return "".join(_symbol(c) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t" else c for c in text)


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if character in "\u200c\u200d\u00ad":  # joiners that scripts and emoji need, the soft hyphen
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
