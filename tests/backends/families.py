"""Tiny random models of every family that the suite covers: built from transformers' own configurations, seeded, fp32.

Weights are drawn wider than a fresh model's, and biases and norms are not left at 0 and 1, so that a part that is ignored
or mixed up with another changes the numbers by far more than any tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

WINDOW = 8
VOCAB = 128
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "sliding_window": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MLA: dict[str, Any] = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
GEMMA4: dict[str, Any] = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 128,
    "num_kv_shared_layers": 0,
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
}


@dataclass(frozen=True)
class Family:
    """How a tiny model of one family is set up, and what is particular about it."""

    name: str
    own: dict[str, Any] = field(default_factory=dict)
    moe: bool = False
    mla: bool = False
    kinds: tuple[str, ...] = ()  # of its layers; empty: all "attention"
    without_mlp: tuple[int, ...] = ()
    drifts: bool = False  # transformers' own cached decoding is not its full forward pass: only the prompt can be compared

    def expected_kinds(self, layers: int) -> tuple[str, ...]:
        return self.kinds or ("attention",) * layers


SLIDING = ("sliding attention",) * 3
FAMILIES = {
    f.name: f
    for f in (
        Family("gpt2"),
        Family(
            "gpt_neo",
            {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": WINDOW},
            kinds=("attention", "sliding attention", "attention"),
        ),
        Family("gpt_neox"),
        Family("gptj", {"rotary_dim": 8}),
        Family("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
        Family("bloom"),
        Family("falcon", {"num_kv_heads": 2, "new_decoder_architecture": False}),
        Family("falcon_alibi", {"model_type": "falcon", "alibi": True, "parallel_attn": False, "multi_query": False}),
        Family("mpt", {"max_seq_len": 256}),
        Family("llama"),
        Family("mistral", kinds=SLIDING),
        Family("mixtral", moe=True, kinds=SLIDING),
        Family("qwen2"),
        Family("qwen3"),
        Family("qwen3_moe", moe=True),
        Family(
            "gemma2",
            {"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            kinds=("sliding attention", "attention", "sliding attention"),
        ),
        Family(
            "gemma3_text",
            {"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            kinds=("sliding attention", "attention", "sliding attention"),
        ),
        Family("phi"),
        Family("phi3", kinds=SLIDING),
        Family("olmo2"),
        Family("stablelm", {"use_parallel_residual": True}),
        Family("starcoder2", kinds=SLIDING),
        Family("cohere", {"logit_scale": 0.25}),
        Family("smollm3"),
        Family("granite", {"residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "attention_multiplier": 0.3}),
        Family("glm4"),
        Family(
            "gpt_oss",
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            moe=True,
            kinds=("sliding attention", "attention", "sliding attention"),
        ),
        Family("deepseek_v3", moe=True, mla=True),
        Family("mamba", {"state_size": 8, "time_step_rank": 4, "expand": 2}, kinds=("state space",) * 3, without_mlp=(0, 1, 2)),
        Family(
            "mamba2",
            {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8, "expand": 2},
            kinds=("state space",) * 3,
            without_mlp=(0, 1, 2),
        ),
        Family(
            "jamba",
            {
                "num_hidden_layers": 4,
                "attn_layer_period": 2,
                "attn_layer_offset": 1,
                "expert_layer_period": 2,
                "expert_layer_offset": 1,
                "mamba_d_state": 8,
                "mamba_dt_rank": 4,
            },
            moe=True,
            kinds=("state space", "attention", "state space", "attention"),
        ),
        Family(
            "bamba",
            {
                "attn_layer_indices": [1],
                "mamba_n_heads": 8,
                "mamba_d_head": 16,
                "mamba_d_state": 8,
                "mamba_chunk_size": 8,
                "mamba_n_groups": 1,
            },
            kinds=("state space", "attention", "state space"),
        ),
        Family(
            "lfm2",
            {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
            kinds=("convolution", "attention", "convolution"),
        ),
        Family("nemotron"),
        Family(
            "exaone4",
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            kinds=("sliding attention", "attention", "sliding attention"),
        ),
        Family("minicpm3", mla=True),
        Family(
            "granitemoehybrid",
            {
                "layer_types": ["mamba", "attention", "mamba"],
                "mamba_n_heads": 8,
                "mamba_d_head": 16,
                "mamba_d_state": 8,
                "mamba_chunk_size": 8,
                "mamba_n_groups": 1,
                "shared_intermediate_size": 32,
                "residual_multiplier": 0.5,
            },
            moe=True,
            kinds=("state space", "attention", "state space"),
        ),
        Family(
            "qwen3_next",
            {
                "num_hidden_layers": 4,
                "layer_types": [*["linear_attention"] * 3, "full_attention"],
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": 16,
                "linear_value_head_dim": 16,
            },
            moe=True,
            kinds=(*["linear attention"] * 3, "attention"),
        ),
    )
}

OTHERS = {  # families that can't show everything, or whose layers are unusual
    f.name: f
    for f in (
        Family("minimax", {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}, moe=True, drifts=True),
        Family("openai-gpt"),
        Family("kimi_linear", {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}, moe=True, mla=True),
        Family(
            "longcat_flash",
            {"num_hidden_layers": 4, "zero_expert_num": 0, "moe_topk": 2, "ffn_hidden_size": 128, "expert_ffn_hidden_size": 32},
            moe=True,
            mla=True,
        ),
        Family("rwkv", {"attention_hidden_size": 64}),
        Family(
            "falcon_h1",
            {"mamba_d_ssm": 128, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8},
        ),
        Family("deepseek_v4", moe=True, mla=True),
        Family("hy_v4", moe=True),
    )
}


def config(name: str, **changes: Any) -> Any:
    """The tiny configuration of a family; only the names that its class knows are set."""
    family = FAMILIES.get(name) or OTHERS.get(name) or Family(name)
    wanted = {**COMMON, **(MOE if family.moe else {}), **(MLA if family.mla else {}), **family.own, **changes}
    model_type = wanted.pop("model_type", name)
    plain = AutoConfig.for_model(model_type)
    known = {name: value for name, value in wanted.items() if _settable(plain, name)}
    return AutoConfig.for_model(model_type, **known)


def _settable(plain: Any, name: str) -> bool:
    name = type(plain).attribute_map.get(name, name)
    computed = getattr(type(plain), name, None)
    return name in {*plain.to_dict(), *dir(plain)} and not (isinstance(computed, property) and computed.fset is None)


def build(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny random model of a family, in fp32, evaluating, with eager attention."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(name, **changes), dtype=torch.float32, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            _spread(parameter_name, parameter, generator)
    return model.eval()


def _spread(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Matrices get entries of about 1.25 / sqrt(columns), vectors are moved a little; what a state space needs as it is stays."""
    if name.endswith(("A_log", "dt_bias", ".D")):
        return
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim > 1:
        parameter.copy_(noise * 1.25 / parameter.shape[-1] ** 0.5)
    else:
        parameter.add_(noise * 0.2)


def mllama(cross: Sequence[int]) -> PreTrainedModel:
    """The text side of Llama 3.2 Vision with four layers; those in `cross` look at an image and do not run without one."""
    from transformers import MllamaForCausalLM
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig

    torch.manual_seed(0)
    known = {k: v for k, v in COMMON.items() if k not in ("sliding_window", "head_dim")}
    settings = MllamaTextConfig(**{**known, "num_hidden_layers": 4, "cross_attention_layers": list(cross)})
    return MllamaForCausalLM._from_config(settings, attn_implementation="eager").eval()


@cache
def tiny(name: str) -> PreTrainedModel:
    """The family's model, built once; tests leave it as it is."""
    return build(name)


class Scaled(nn.Module):
    """A layer whose sub-blocks add up only after the whole stream was multiplied."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        return 0.9 * self.inner(hidden_states, **kwargs).tanh()
