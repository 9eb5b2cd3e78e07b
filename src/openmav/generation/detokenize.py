"""Ids to text one at a time: a character that is split over tokens appears once and whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """The text of single tokens as they read inside a text (with their leading space), remembered: look one up by its id."""

    def __init__(self, decode: Callable[[Sequence[int]], str], anchor: int) -> None:
        super().__init__()
        self._decode = decode
        self._anchor = [anchor]
        self._before = decode(self._anchor)

    def __missing__(self, token_id: int) -> str:
        whole = self._decode([*self._anchor, token_id])
        follows = whole.startswith(self._before)
        self[token_id] = whole[len(self._before) :] if follows else self._decode([token_id])
        return self[token_id]
