"""Whether a stream is a terminal, and which text is safe to write to one: the one place that says which characters are not.

`neutral` is for text that flows, `escaped` for a line that repeats what a user wrote. `paint.text` shows the same characters as symbols
whose cells are known, and an input line shows one symbol for each.
"""

from __future__ import annotations

from typing import Any

JOINERS = "\u200c\u200d\u00ad"  # that scripts and emoji need, and the soft hyphen
ERASE_LINE = "\r\x1b[2K"  # back to the left edge, and nothing on the line


def is_terminal(stream: Any) -> bool:
    """Whether the stream is a terminal; False for a closed one."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def has_power(character: str) -> bool:
    """Whether a terminal may do more with it than show it; true for newline and tab, false for joiners and the soft hyphen."""
    if character.isprintable():
        return False
    import unicodedata  # takes a while to load, and few lines hold such characters

    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def picture(character: str) -> str:
    """Unicode's picture of a control character, such as ␛; "" where there is none."""
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else ""


def neutral(text: str) -> str:
    """The text with nothing that controls a terminal: control, escape and direction-changing characters become visible symbols.

    Newline and tab stay, and so do right-to-left scripts and the joiners that scripts and emoji need: nothing is measured
    in cells here.
    """
    return "".join(picture(char) or _escape(char) if char not in "\n\t" and has_power(char) else char for char in text)


def escaped(text: str) -> str:
    """The text with an escape such as \\n or \\u202e for each character that a line cannot show."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def write(stream: Any, text: str) -> None:
    """Writes the text and flushes; a character that the stream's encoding lacks is written as an escape such as \\u4e2d."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
