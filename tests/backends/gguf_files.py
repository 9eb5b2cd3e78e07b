"""GGUF files of tiny models, written with the gguf package: names from its own table, none of transformers' loader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmav.backends.loading import checkpoint

if TYPE_CHECKING:
    import torch

VOCABULARY = 2048


def write(
    model: Any, path: Path, architecture: str, keys: Mapping[str, Any], tensors: Mapping[str, Any] | None = None, matrices: str = "F32"
) -> Path:
    """A file of a model's weights in float32, its matrices in the type that `matrices` names.

    `keys` are added to the usual ones: without a dot first they are the architecture's own.
    """
    import gguf
    from gguf.quants import quantize

    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    own = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
    }
    for key, value in {**own, **keys}.items():
        add(writer, key if key.startswith("tokenizer.") else f"{architecture}.{key}", value)
    add_tokenizer(writer)
    own_kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(own_kind, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if ".experts." in name:
            _add_experts(writer, name, value)
            continue
        base, end = name.rsplit(".", 1)
        stored = _stored(architecture, name, value, config)
        kind = gguf.GGMLQuantizationType[matrices if stored.ndim == 2 else "F32"]
        writer.add_tensor(f"{names.get_name(base)}.{end}", quantize(stored, kind), raw_dtype=kind)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, np.asarray(value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_experts(writer: Any, name: str, value: torch.Tensor) -> None:
    """Those of a layer: all together, as both have them, but gate and up apart."""
    layer = name.split(".")[2]
    gate_up = dict(zip(("gate", "up"), value.chunk(2, dim=1))) if name.endswith("gate_up_proj") else {"down": value}
    for part, weights in gate_up.items():
        writer.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight", np.ascontiguousarray(weights.float().numpy()))


def add(writer: Any, key: str, value: Any) -> None:
    """One key, in the type that llama.cpp reads it in; an array of numpy in its own type."""
    import gguf

    if isinstance(value, np.ndarray):
        kind = gguf.GGUFValueType[value.dtype.name.upper()]
        writer.add_key_value(key, value.tolist(), gguf.GGUFValueType.ARRAY, sub_type=kind)
        return
    kinds = (
        (bool, writer.add_bool),
        (int, writer.add_uint32),
        (float, writer.add_float32),
        (str, writer.add_string),
        (list, writer.add_array),
    )
    next(add for kind, add in kinds if isinstance(value, kind))(key, value)


def _stored(architecture: str, name: str, value: torch.Tensor, config: Any) -> np.ndarray:
    """A weight as llama.cpp keeps it: a llama's rotated heads are interleaved, and a Gemma's norms have 1 added."""
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        value = value.reshape(heads, 2, -1, value.shape[-1]).transpose(1, 2).reshape(value.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        value = value + 1
    return np.ascontiguousarray(value.float().numpy())


def add_tokenizer(writer: Any, size: int = VOCABULARY) -> None:
    """The demo model's, with unused tokens up to `size`."""
    settings = json.loads((checkpoint.DEMO_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(settings["vocab"], key=settings["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (size - 1)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in settings["merges"]])
    writer.add_eos_token_id(0)


def unpacked(gguf: Path) -> dict[str, torch.Tensor]:
    """A llama's weights, unpacked by the gguf package itself and given transformers' names; nothing of transformers' loader."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(gguf)
    heads, kv_heads = (int(reader.fields[f"llama.attention.head_count{k}"].contents()) for k in ("", "_kv"))
    inside = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        **{f"attn_{k}": f"self_attn.{k}_proj" for k in "qkv"},
        "attn_output": "self_attn.o_proj",
        **{f"ffn_{k}": f"mlp.{k}_proj" for k in ("gate", "up", "down")},
    }
    outside = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    found = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        parts = tensor.name.removesuffix(".weight").split(".")
        if parts[-1] in ("attn_q", "attn_k"):  # llama.cpp keeps the two halves of each rotated head interleaved
            count = heads if parts[-1] == "attn_q" else kv_heads
            weight = weight.view(count, -1, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
        name = f"model.layers.{parts[1]}.{inside[parts[2]]}" if parts[0] == "blk" else outside[parts[0]]
        found[f"{name}.weight"] = weight.contiguous()
    return found
