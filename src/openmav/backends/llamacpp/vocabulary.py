"""A model's tokens, through llama.cpp's own tokenizer: text to ids as the file says, and ids to text without loss."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from openmav.backends.base import TokenBytes
from openmav.backends.llamacpp import sampling_keys
from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.backends.shared import chat_rendering, chat_templates
from openmav.errors import LoadError, UsageError
from openmav.settings.generation_defaults import GenerationDefaults

SHORT = 2  # tokens: what is decoded again and again, a candidate after a letter or the token before the newest
REMEMBERED = 1 << 15  # texts of so few tokens
PIECE = 64  # bytes that hold nearly every token
SPACED = ("llama", "t5")  # tokenizers that put a space before a text, unless the file says otherwise
TEMPLATE = "tokenizer.chat_template"
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # a template's names, and the file's


class Vocabulary:
    """`llama` is llama-cpp-python's module of functions, `vocab` llama.cpp's vocabulary, `header` that of the file."""

    def __init__(self, llama: Any, vocab: Any, header: GgufHeader) -> None:
        self._llama, self._vocab, self._header = llama, vocab, header
        self.size = int(llama.llama_vocab_n_tokens(vocab))
        outside = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
        self.special_ids = frozenset(i for i in range(self.size) if llama.llama_vocab_get_attr(vocab, i) & outside)
        self.end_ids = frozenset(i for i in header.end_ids if 0 <= i < self.size)
        self.end_ids |= {i for i in self.special_ids if llama.llama_vocab_is_eog(vocab, i)}  # those that it knows by their names
        if llama.llama_vocab_type(vocab) == llama.LLAMA_VOCAB_TYPE_SPM:
            self._need_bytes()
        self._strips = bool(self._key("add_space_prefix", self._key("model", "") in SPACED))
        self._pieces: dict[int, bytes] = {}
        self._short = lru_cache(REMEMBERED)(self._decode)

    def _need_bytes(self) -> None:
        """Raises LoadError where a byte has no token: llama.cpp would end the process on a text that needs it."""
        known = {self._llama.llama_vocab_get_text(self._vocab, i) for i in range(self.size)}
        absent = [byte for byte in range(256) if b"<0x%02X>" % byte not in known and bytes([byte]) not in known]
        if absent:
            raise LoadError(
                f"this file's vocabulary has no token for {len(absent)} bytes, such as 0x{absent[-1]:02X}; it can't spell every text"
            )

    def _key(self, name: str, otherwise: Any = None) -> Any:
        return self._header.values.get(f"tokenizer.ggml.{name}", otherwise)

    @property
    def reference(self) -> int:
        """The token used as a neutral replacement, as with transformers: padding, else unknown, end or beginning of text; else 0."""
        ids = (self._key(f"{SPECIAL[name]}_token_id") for name in ("pad_token", "unk_token", "eos_token", "bos_token"))
        return next((i for i in ids if isinstance(i, int) and 0 <= i < self.size), 0)

    # ---- text to ids -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        """Token ids. With `chat` the text becomes one user message in the file's chat template, or in the one of that name.

        Raises UsageError where the file has no such template, or the template can't be used.
        """
        if not chat:
            return self._ids(text, add_special=True)
        return self._ids(chat_templates.written(text, chat_templates.chosen(self.templates, chat), self._render), add_special=False)

    def _ids(self, text: str, *, add_special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        buffer = (self._llama.llama_token * room)()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, True)
        if count < 0:
            raise UsageError("llama.cpp's tokenizer fails on this text; give another one, or add --backend transformers")
        return list(buffer[:count])

    @cached_property
    def templates(self) -> dict[str, str]:
        """The chat templates of the file by name; "default" is the one without."""
        texts = {key: value for key, value in sorted(self._header.values.items()) if key.startswith(TEMPLATE) and isinstance(value, str)}
        return {key.removeprefix(TEMPLATE).removeprefix(".") or "default": text for key, text in texts.items()}

    def _render(self, content: Any, template: str) -> str:
        ids = {name: self._key(f"{key}_token_id") for name, key in SPECIAL.items()}
        texts = {name: self.decode([i]) for name, i in ids.items() if isinstance(i, int) and 0 <= i < self.size}
        return chat_rendering.render(template, [{"role": "user", "content": content}], texts)

    # ---- ids to text -----------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, special tokens written out; bytes that are no whole character become U+FFFD.

        The space that the tokenizer itself puts before a text is left out.
        """
        return self._short(*ids) if len(ids) <= SHORT else self._decode(*ids)

    def _decode(self, *ids: int) -> str:
        data = b"".join(map(self._piece, ids))
        if self._strips and ids and ids[0] not in self.special_ids:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def _piece(self, token_id: int) -> bytes:
        if token_id not in self._pieces:
            self._pieces[token_id] = self._read(token_id)
        return self._pieces[token_id]

    def _read(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.size:
            return b""
        room = PIECE
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._llama.llama_token_to_piece(self._vocab, token_id, buffer, room, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def is_special(self, token_id: int) -> bool:
        return token_id in self.special_ids

    def bytes_of(self, token_id: int) -> bytes | None:
        """See backends.base.NamedBytes."""
        return self._piece(token_id) or None

    def spelling(self) -> TokenBytes:
        """See backends.base.Spelling; a text is the bytes of its tokens, one after the other."""
        return TokenBytes((tuple(b"" if i in self.special_ids else self._piece(i) or None for i in range(self.size)),))

    # ---- what the file says of sampling ----------------------------------------------------------------------------------

    def generation_defaults(self) -> GenerationDefaults:
        """See backends.base.Configured."""
        return sampling_keys.defaults(self._header)
