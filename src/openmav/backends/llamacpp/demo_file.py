"""The bundled model as a GGUF file, made of its safetensors at first use, in the user's cache folder; with numpy and gguf, without torch.

Its weights are kept in float32: the bundled ones are float16, and these are the same numbers, but llama.cpp would also round to
float16 what it multiplies float16 weights with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from openmav.backends.loading.checkpoint import DEMO_FOLDER
from openmav.errors import LoadError
from openmav.record import Array
from openmav.system.files import write_file

ARCHITECTURE, PRE_TOKENIZER = "llama", "gpt-2"
SOURCES = ("config.json", "tokenizer.json", "model.safetensors")
FORM = 1  # of this file's own making: another number where it writes something else
NORMAL, CONTROL = 1, 3  # llama.cpp's types of tokens
NAMES = {  # llama.cpp's names for the parts of a layer
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def path() -> Path:
    """The file, written where it is not there yet. Raises LoadError where the cache folder can't be written to."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("mav", appauthor=False))
    summed = hashlib.sha256(b"%d" % FORM)
    for name in SOURCES:
        summed.update((DEMO_FOLDER / name).read_bytes())
    file = folder / f"demo-{summed.hexdigest()[:16]}.gguf"
    if file.is_file():
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(file)
        _remove_older(file)
    except OSError as error:
        what = f"the bundled model can't be written to {folder} for llama.cpp ({error.strerror or error})"
        raise LoadError(f"{what}; make room there, or run it with --backend transformers") from error
    return file


def _make(file: Path) -> None:
    """Written beside it, and moved to its place when whole: another mav may be at it too."""
    with tempfile.TemporaryDirectory(prefix="mav-demo-", dir=file.parent) as made:
        whole = Path(made) / file.name
        write(whole)
        try:
            write_file(file, whole.read_bytes())
        except PermissionError:  # Windows, where the other mav was first and has it open
            if not file.is_file():
                raise


def _remove_older(file: Path) -> None:
    for other in file.parent.glob("demo-*.gguf"):
        if other != file:
            with contextlib.suppress(OSError):
                os.remove(other)


def write(path: Path) -> None:
    """Write the bundled model as a GGUF file. Raises OSError."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((DEMO_FOLDER / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_config(writer, config)
    _add_tokenizer(writer, json.loads((DEMO_FOLDER / "tokenizer.json").read_text(encoding="utf-8")), config)
    for name, value in load_file(DEMO_FOLDER / "model.safetensors").items():
        writer.add_tensor(_name(name), _stored(name, value, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: Any, config: dict[str, Any]) -> None:
    writer.add_name("demo")
    writer.add_file_type(0)  # float32
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """A byte-level BPE that splits text as GPT-2's does."""
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(
        {**vocabulary, **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}.items(), key=lambda one: one[1]
    )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([CONTROL if number in special else NORMAL for _, number in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_bos_token_id(config["eos_token_id"])  # which is never added; llama.cpp would take token 11 for it
    writer.add_add_bos_token(False)


def _name(name: str) -> str:
    outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outside:
        return outside[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{NAMES[part]}.weight"


def _stored(name: str, value: Array, config: dict[str, Any]) -> Array:
    """A weight as llama.cpp has it: it rotates neighbouring numbers of a head, where transformers rotates its two halves."""
    value = np.asarray(value, dtype=np.float32)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if heads is None:
        return value
    interleaved = value.reshape(heads, 2, -1, value.shape[-1]).swapaxes(1, 2)
    return np.ascontiguousarray(interleaved).reshape(value.shape)
