"""Ids to text one at a time: a character that is split over tokens appears once and whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openmav.backends.base import Backend, NamedBytes

BROKEN = "\ufffd"
HOLD = 8  # tokens that may wait for the rest of a character; no character takes more
CONTEXT = 32  # tokens without text that are looked past for one with text to decode after


class Detokenizer:
    """Grows with each token and can be cut back to any earlier length. Decoding looks at a few tokens of context only."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._marks: list[tuple[int, int]] = [(0, 0)]  # after each token: where context begins, and what is shown so far

    def add(self, token_id: int, *, last: bool = False) -> str:
        """The text that this token adds; "" while a character is not whole. `last`: whatever waits comes out as it is."""
        self._ids.append(token_id)
        context, shown = self._marks[-1]
        before = self._decode(self._ids[context:shown]) if shown > context else ""  # some decoders fail on no tokens
        now = self._decode(self._ids[context:])
        waiting = now.endswith(BROKEN) and len(self._ids) - shown < HOLD and not last
        if waiting:
            self._marks.append((context, shown))
            return ""
        added = now[len(before) :]
        kept = not added and shown - context < CONTEXT  # after a token without text, the one before it still decides
        self._marks.append((context if kept else shown, len(self._ids)))
        return added

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        del self._ids[length:]
        del self._marks[length + 1 :]


class TokenStrings(dict[int, str]):
    """The text of single tokens as they read inside a text (with their leading space), remembered: look one up by its id.

    A token that is a part of a character is named by its bytes, such as "<0xF0>", where `bytes_of` knows them and the decoder agrees.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], anchor: int, bytes_of: Callable[[int], bytes | None] | None = None) -> None:
        super().__init__()
        self._decode, self._bytes_of = decode, bytes_of
        self._anchor = [anchor]
        self._before = decode(self._anchor)

    @classmethod
    def of(cls, backend: Backend, prompt_ids: Sequence[int]) -> TokenStrings:
        """Those of a backend; tokens are decoded after one letter, or after the prompt's last token where that is none."""
        bytes_of = backend.bytes_of if isinstance(backend, NamedBytes) else None
        return cls(backend.decode, (backend.encode("a") or prompt_ids)[-1], bytes_of)

    def __missing__(self, token_id: int) -> str:
        whole = self._decode([*self._anchor, token_id])
        follows = whole.startswith(self._before)
        text = whole[len(self._before) :] if follows else self._decode([token_id])
        known = self._bytes_of(token_id) if BROKEN in text and self._bytes_of is not None else None
        self[token_id] = text if known is None or known.decode(errors="replace") != text else spelled(known)
        return self[token_id]


def spelled(text: bytes) -> str:
    """The text of these bytes, with each that is no whole character by its number: "<0xF0>"."""
    chars = text.decode(errors="surrogateescape")
    return "".join(f"<0x{ord(char) - 0xDC00:02X}>" if "\udc80" <= char <= "\udcff" else char for char in chars)
