"""A tokenizer as mav needs it: text to ids as the model wants them, and ids to text with nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openmav.errors import UsageError


class Tokens:
    """Wraps a transformers tokenizer; decoding writes special tokens out and cleans nothing up."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special_ids = frozenset(int(i) for i in tokenizer.all_special_ids)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special_ids |= {int(i) for i, token in added.items() if getattr(token, "special", False)}

    def encode(self, text: str, chat: bool) -> list[int]:
        """Ids to feed. With `chat` the text becomes one user message in the model's own template.

        Raises UsageError where the model has no template.
        """
        if not chat:
            return [int(i) for i in self.tokenizer(text)["input_ids"]]
        if not getattr(self.tokenizer, "chat_template", None):
            raise UsageError("this model has no chat template; run without --chat")
        messages = [{"role": "user", "content": text}]
        written = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return [int(i) for i in self.tokenizer(written, add_special_tokens=False)["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
