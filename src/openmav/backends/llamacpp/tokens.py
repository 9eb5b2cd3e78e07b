"""A model's tokens, through llama.cpp's own tokenizer."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from openmav.backends.base import TokenBytes
from openmav.errors import LoadError, UsageError


class Vocabulary:
    """`llama` is llama-cpp-python's module of functions, `vocab` llama.cpp's vocabulary."""

    def __init__(self, llama: Any, vocab: Any) -> None:
        self._llama, self._vocab = llama, vocab
        self.end_ids = frozenset(i for i in range(llama.llama_vocab_n_tokens(vocab)) if llama.llama_vocab_is_eog(vocab, i))

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        if chat:
            raise LoadError("the backend llamacpp has no chat templates yet; add --backend transformers")
        data = text.encode()
        size = len(data) + 8
        buffer = (self._llama.llama_token * size)()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), buffer, size, True, True)
        if count < 0:
            raise UsageError("this text can't be tokenized")
        return list(buffer[:count])

    def bytes_of(self, token_id: int) -> bytes | None:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._llama.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.bytes_of(i) or b"" for i in ids).decode("utf-8", "replace")

    def is_special(self, token_id: int) -> bool:
        return bool(self._llama.llama_vocab_is_control(self._vocab, token_id))

    def spelling(self) -> TokenBytes:
        raise UsageError("the backend llamacpp can't constrain a text yet; add --backend transformers")
