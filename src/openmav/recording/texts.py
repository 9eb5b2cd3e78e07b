"""The texts of the tokens that measures name, which stand once in a file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def ids_in(values: Mapping[str, NDArray[Any]]) -> set[int]:
    """All token ids in a step's values."""
    return {i for name, array in values.items() if name.endswith(".token_ids") for i in array.ravel().tolist() if i >= 0}


def without_texts(pieces: Mapping[int, str], texts: Mapping[int, str], new: dict[int, str]) -> tuple[dict[int, str], list[int]]:
    """What the file can't have once for all steps, a second text of a token or no UTF-8; and the ids of the others.

    `new` gets those that it does not have yet.
    """
    rest = {}
    for token_id, text in pieces.items():
        known = texts.get(token_id, new.get(token_id))
        if known is None and text.encode("utf-8", "replace").decode() == text:
            new[token_id] = text
        elif known != text:
            rest[token_id] = text
    return rest, [token_id for token_id in pieces if token_id not in rest]


def sum_of_text(token_id: int, text: str) -> int:
    """CRC-32 of a token's id and text."""
    return zlib.crc32(f"{token_id} {text}".encode())
