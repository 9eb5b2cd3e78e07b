"""Which modules of a layer give what it adds to the residual stream, as read in transformers' modeling files.

This is the one place that knows names, so that what mav finds by itself can be compared with it. An entry is (attention or the mixer in its
place, MLP); "a|b" is the first that the layer has, "a+b" a sum, "" nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

Names: TypeAlias = tuple[str, str]
Factor: TypeAlias = "float | Tensor"  # a number, or one a channel
USUAL: Names = ("self_attn", "mlp")
AFTER: Names = ("post_attention_layernorm", "post_feedforward_layernorm")
_USUAL = (
    "llama mistral mixtral qwen2 qwen3 qwen2_moe qwen3_moe gemma phi phi3 phimoe olmo olmoe cohere cohere2 starcoder2 smollm3 stablelm "
    "nemotron persimmon deepseek_v2 deepseek_v3 deepseek_v32 gpt_oss arcee apertus helium glm glm4_moe ernie4_5 ernie4_5_moe seed_oss "
    "hunyuan_v1_dense hunyuan_v1_moe bitnet ministral ministral3 cwm dots1 minimax_m2 vaultgemma internlm3 diffllama jais2 solar_open "
    "exaone_moe youtu glm_moe_dsa moshi nanochat granite minicpm3 doge"
)
NAMES: dict[str, Names] = {
    **dict.fromkeys(_USUAL.split(), USUAL),
    **dict.fromkeys(["gemma2", "gemma3_text", "gemma4_text", "olmo2", "olmo3", "exaone4", "flex_olmo"], AFTER),
    **dict.fromkeys(["gpt2", "gpt_neo", "gptj", "codegen", "gpt_bigcode", "modernbert-decoder"], ("attn", "mlp")),
    **dict.fromkeys(["opt", "biogpt", "xglm"], ("self_attn", "fc2")),
    **dict.fromkeys(["mamba", "mamba2", "falcon_mamba"], ("mixer", "")),
    **dict.fromkeys(["jamba", "bamba"], ("self_attn|mamba", "feed_forward")),
    **dict.fromkeys(["lfm2", "lfm2_moe"], ("self_attn|conv", "feed_forward")),
    **dict.fromkeys(["qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"], ("self_attn|linear_attn", "mlp")),
    "afmoe": ("post_attention_layernorm", "post_mlp_layernorm"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "dbrx": ("norm_attn_norm.attn", "ffn"),
    "falcon": ("self_attention", "mlp"),
    "falcon_h1": ("self_attn+mamba", "feed_forward"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "gpt_neox": ("attention", "mlp"),
    "granitemoe": ("self_attn", "block_sparse_moe"),
    "granitemoehybrid": ("self_attn|mamba", "block_sparse_moe+shared_mlp"),
    "jetmoe": ("self_attention", "mlp"),
    "llama4_text": ("self_attn", "feed_forward"),
    "longcat_flash": ("self_attn.0+self_attn.1", "mlps.0+mlps.1+mlp"),
    "mpt": ("attn", "ffn.down_proj"),
    "olmo_hybrid": ("linear_attn|post_attention_layernorm", "post_feedforward_layernorm|mlp"),
    "recurrent_gemma": ("temporal_block", "mlp_block"),
    "reformer": ("attention", "feed_forward"),
    "rwkv": ("attention", "feed_forward"),
    "xlstm": ("mlstm_layer", "ffn"),
}
MORE = {
    "doge",
    "gemma4_text",
    "reformer",
    "rwkv",
    "bloom after",
    "opt norms after",
}  # input + attention + MLP is not all that these layers do
GUESS: Names = ("linear_attn|self_attn|self_attention|attention|attn|mamba|conv", "mlp|feed_forward|ffn|block_sparse_moe|moe")
FACTORS: dict[str, Callable[[Any, Any], tuple[Factor, Factor]]] = {  # of (layer, configuration): what attention and MLP are multiplied by
    "doge": lambda layer, _: (layer.post_attention_residual.detach(), 1.0),
    "gemma4_text": lambda layer, _: (layer.layer_scalar, layer.layer_scalar),
    "granite": lambda layer, _: (layer.residual_multiplier,) * 2,
    "granitemoe": lambda layer, _: (layer.residual_multiplier,) * 2,
    "granitemoehybrid": lambda layer, _: (layer.residual_multiplier,) * 2,
    "minicpm3": lambda _, config: (config.scale_depth / config.num_hidden_layers**0.5,) * 2,
}


class NamedParts:
    """The modules of one layer that a modeling file adds to the residual stream. `sure`: read there; else guessed by their usual names."""

    def __init__(self, model_type: str, layer: nn.Module, config: Any) -> None:
        text = config.get_text_config(decoder=True)
        known = next((name for name in (model_type, text.model_type) if name in NAMES), "")
        self.sure = bool(known)
        self.whole = not {known, model_type} & MORE  # whether input + attention + MLP is the layer's output
        self._parts = [_modules(layer, names) for names in NAMES.get(known, GUESS)]
        if not self.sure and not all(self._parts):
            self._parts = [[], []]
        self._factors = FACTORS[known](layer, text) if known in FACTORS else (1.0, 1.0)

    @property
    def modules(self) -> list[nn.Module]:
        return [module for part in self._parts for module in part]

    def sums(self, given: Mapping[nn.Module, Tensor]) -> list[Tensor | None]:
        """[width] fp64 each: what attention and MLP add, by what their modules gave."""
        return [_sum(part, given, factor) for part, factor in zip(self._parts, self._factors, strict=True)]


def _sum(part: Sequence[nn.Module], given: Mapping[nn.Module, Tensor], factor: Factor) -> Tensor | None:
    values = [given[module].double() for module in part if module in given]
    return factor * sum(values) if values and len(values) == len(part) else None  # type: ignore[return-value]


def _modules(layer: nn.Module, names: str) -> list[nn.Module]:
    found = []
    for choices in names.split("+") if names else ():
        present = [path for path in choices.split("|") if _has(layer, path)]
        found += [layer.get_submodule(present[0])] if present else []
    return found


def _has(layer: nn.Module, path: str) -> bool:
    try:
        return not isinstance(layer.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False
