"""A tiny model in a folder, made once, and copies of it with one file changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "tie_word_embeddings": False,
}
RUN = ("--model", "{folder}/model", "--plain", "--max-new-tokens", "3", "--prompt", "Hi there")


@cache
def original() -> Path:
    """The folder of the sound model."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = Path(mkdtemp(prefix="mav-attacks-"))
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{k: v for k, v in CONFIG.items() if k not in ("architectures", "model_type")})).save_pretrained(folder)
    alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(folder)
    return folder


def sound(folder: Path) -> Path:
    """A copy of it as `folder`/model."""
    return Path(shutil.copytree(original(), folder / "model"))


def with_file(name: str, content: str | bytes | None) -> Callable[[Path], None]:
    """The sound model with this file put in the place of its own; None: without it."""

    def make(folder: Path) -> None:
        file = sound(folder) / name
        if content is None:
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return make


def with_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The sound model with this JSON file changed."""

    def make(folder: Path) -> None:
        file = sound(folder) / name
        data = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        change(data)
        file.write_text(json.dumps(data), encoding="utf-8")

    return make
