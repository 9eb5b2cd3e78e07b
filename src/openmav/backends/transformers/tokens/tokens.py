"""A tokenizer as mav needs it: text to ids as the model expects them, and ids to text without loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from openmav.backends.shared import chat_rendering, chat_templates
from openmav.backends.transformers.tokens.token_bytes import bytes_of_name
from openmav.backends.transformers.tokens.tokenizer_limits import PanicError, panics_as_errors
from openmav.errors import UsageError, words_of

SHORT = 2  # tokens: what is decoded again and again, a candidate after a letter or the token before the newest
REMEMBERED = 1 << 15  # texts of so few tokens


class Tokens:
    """Wraps a transformers tokenizer; decoding writes special tokens out and does not clean up spaces."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special_ids = frozenset(int(i) for i in tokenizer.all_special_ids if i is not None)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special_ids |= {int(i) for i, token in added.items() if getattr(token, "special", False)}
        self._short = lru_cache(REMEMBERED)(self._decode)

    def encode(self, text: str, chat: bool | str) -> list[int]:
        """Token ids. With `chat` the text becomes one user message in the model's own template, or in the one of that name.

        Raises UsageError where the model has no such template, or the template can't be used.
        """
        if not chat:
            return self._ids(text)
        template = chat_templates.chosen(getattr(self.tokenizer, "chat_template", None), chat)
        return self._ids(chat_templates.written(text, template, self._render), add_special_tokens=False)

    def _ids(self, text: str, **options: bool) -> list[int]:
        try:
            with panics_as_errors():
                return [int(i) for i in self.tokenizer(text, **options)["input_ids"]]
        except Exception as error:  # a tokenizer is data from the author of the model
            raise UsageError(f"the model's tokenizer fails on this text: {words_of(error)}") from error

    def _render(self, content: Any, template: str) -> str:
        messages = [{"role": "user", "content": content}]
        if type(self.tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template:
            return chat_rendering.render(template, messages, self.tokenizer.special_tokens_map)
        return str(self.tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True))

    def bytes_of(self, token_id: int) -> bytes | None:
        """The bytes of a token, as its name in the vocabulary spells them; None where it does not."""
        convert = getattr(self.tokenizer, "convert_ids_to_tokens", None)
        name = None if convert is None else convert(token_id)
        return bytes_of_name(name) if isinstance(name, str) else None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens. Raises UsageError where the tokenizer fails on them."""
        return self._short(*ids) if len(ids) <= SHORT else self._decode(*ids)

    def _decode(self, *ids: int) -> str:
        try:
            with panics_as_errors():
                return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        except (PanicError, OverflowError) as error:
            raise UsageError(f"the model's tokenizer can't decode its tokens: {words_of(error)}") from error


def add_processor_template(tokenizer: Any, place: str) -> None:
    """Set the chat template of a tokenizer without one from chat_template.json, where image processors keep theirs."""
    if getattr(tokenizer, "chat_template", None):
        return
    quiet = ("missing_entries", "connection_errors", "gated_repo")
    file = cached_file(place, "chat_template.json", **{f"_raise_exceptions_for_{name}": False for name in quiet})
    if file is None:
        return
    try:
        own = json.loads(Path(file).read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(own, str):
        tokenizer.chat_template = own
