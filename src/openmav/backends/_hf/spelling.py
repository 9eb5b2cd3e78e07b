"""The bytes that each token of a transformers tokenizer adds to a text.

Byte-level vocabularies write each byte as a character of GPT-2's alphabet; sentencepiece ones write a space as "▁" and a lone byte as
<0xNN>. Which of them it is stands in the tokenizer's decoder; where it says neither, the tokenizer is asked to decode each token.
"""

from __future__ import annotations

import json
import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def spelling(tokenizer: Any, vocab: int) -> list[bytes]:
    """[vocab]; b"" for special tokens, for ids without a token, and for what can't be known."""
    special = {int(i) for i in tokenizer.all_special_ids}
    added = {int(i): token for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    special |= {i for i, token in added.items() if getattr(token, "special", False)}
    size = min(vocab, len(tokenizer))
    read = _reader(tokenizer)
    found = [b""] * vocab
    for i in range(size):
        if i not in special:
            found[i] = str(added[i]).encode() if i in added else read(i)
    return found


def _reader(tokenizer: Any) -> Any:
    """id -> bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.dumps(json.loads(backend.to_str()).get("decoder")) if backend is not None else ""
    if '"ByteLevel"' in decoder:
        bytes_of = {char: byte for byte, char in bytes_to_unicode().items()}

        def from_bytes(i: int) -> bytes:
            piece = tokenizer.convert_ids_to_tokens(i) or ""
            return bytes(bytes_of[char] for char in piece) if all(char in bytes_of for char in piece) else piece.encode()

        return from_bytes
    if "\\u2581" in decoder:

        def from_pieces(i: int) -> bytes:
            piece = tokenizer.convert_ids_to_tokens(i) or ""
            byte = _BYTE.fullmatch(piece)
            return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()

        return from_pieces

    def decoded(i: int) -> bytes:
        text = tokenizer.decode([i], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return b"" if "\ufffd" in text else text.encode()

    return decoded
