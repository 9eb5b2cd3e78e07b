"""The settings of tiny models of llama.cpp's architectures, as the keys of a GGUF file.

They are those of llama.cpp's own test of its architectures (tests/test-llama-archs.cpp, MIT licence), with more layers, a longer
context, more experts and a vocabulary that can spell text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.gguf_files import VOCABULARY

CONTEXT, WINDOW = 1024, 32


def _named(text: str) -> frozenset[str]:
    return frozenset(text.split())


EXPERTS_ONLY = _named(
    """
    llama4 cohere2moe grok qwen2moe qwen3moe qwen3next qwen3vlmoe qwen35moe qwen4exp phimoe dbrx olmoe arctic
    deepseek deepseek2 deepseek32 dots3note deepseek4 glm4moe glm-dsa exaone-moe bailingmoe bailingmoe2
    bailingmoe3 dots1 afmoe ernie4_5 ernie4_5-moe hunyuan-moe hy_v3 hy_v4 gpt-oss lfm2moe smallthinker
    llada-moe grovemoe minimax-01 minimax-m2 minimax-m3 rnd1 paddleocr mimo2 kimi-linear kimi-k3 glm5-next
    step35 mistral4 mellum laguna maple
    """
)
EXPERTS_TOO = _named(
    """
    llama refact minicpm granite granitemoe mistral3
    """
)
DENSE = _named(
    """
    deci falcon gpt2 gptneox mpt baichuan starcoder bloom stablelm qwen qwen2 qwen2vl qwen3 qwen3vl qwen35
    phi2 phi3 plamo plamo2 plamo3 codeshell orion internlm2 minicpm3 gemma gemma2 gemma3 gemma3n gemma4
    starcoder2 mamba mamba2 jamba falcon-h1 xverse command-r cohere2 olmo olmo2 muse-glimmer openelm chatglm
    glm4 bitnet jais jais2 nemotron nemotron_h nemotron_h_moe exaone exaone4 rwkv6 rwkv6qwen2 rwkv7 arwkv7
    granitehybrid graniteswitch granite_swa chameleon plm arcee hunyuan-dense hunyuan_vl smollm3 lfm2
    seed_oss apertus hrm_text cogvlm pangu-embedded spark2_5 maincoder talkie nanbeige qwen3tts pockettts
    deepseek2-ocr
    """
)
LATENT = _named(
    """
    deepseek2 deepseek32 glm-dsa dots3note kimi-linear bailingmoe3 kimi-k3 glm5-next hy_v4 mistral4
    """
)
HYBRID = _named(
    """
    plamo2 jamba nemotron_h nemotron_h_moe granitehybrid lfm2 lfm2moe kimi-linear bailingmoe3 kimi-k3
    glm5-next
    """
)
ALTERNATING = _named(
    """
    cohere2moe mimo2 step35 spark2_5 muse-glimmer granite_swa dots3note maple
    """
)
SSM_OF_256 = _named(
    """
    qwen3next qwen35 qwen35moe qwen4exp
    """
)


def names() -> list[str]:
    """All models, by architecture; those with experts where an architecture has both end in "+experts"."""
    return sorted([*EXPERTS_ONLY, *EXPERTS_TOO, *(f"{name}+experts" for name in EXPERTS_TOO), *DENSE])


def parted(name: str) -> tuple[str, bool]:
    """The architecture of a model, and whether it has experts."""
    architecture = name.removesuffix("+experts")
    return architecture, architecture != name or architecture in EXPERTS_ONLY


def settings(architecture: str, experts: bool) -> dict[str, Any]:
    """The architecture's own keys: those that it does not read do no harm."""
    layers, width, heads, hidden = _sizes(architecture)
    result: dict[str, Any] = {
        "vocab_size": vocabulary(architecture),
        "context_length": CONTEXT,
        "embedding_length": width,
        "features_length": width,
        "block_count": layers,
        "leading_dense_block_count": 1,
        "feed_forward_length": hidden,
        "use_parallel_residual": False,
        "logit_scale": 1.0,
        "time_mix_extra_dim": 64,
        "time_decay_extra_dim": 128,
        "full_attention_interval": 2,
        "rope.freq_base": 10000.0,
        "residual_scale": 3.5565588200778455,
        "attn_res.block_size": 12,
        "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0,
        "shortconv.l_cache": 3,
        "wkv.head_size": width // heads,
        "kda.head_dim": 128,
        "kda.safe_gate": True,
        "kda.gate_lower_bound": -5.0,
    }
    result |= _attention(architecture, layers, width, heads)
    result |= _states(architecture, width, heads)
    if experts:
        result |= _experts(architecture, hidden)
    if architecture in ("nemotron_h", "nemotron_h_moe"):
        result["feed_forward_length"] = [0 if layer <= 1 else hidden for layer in range(layers)]
    if architecture == "bailingmoe3":
        result |= {"swiglu_clamp_exp": [0.0] + [4.0] * (layers - 1), "swiglu_clamp_shexp": [0.0] + [5.0] * (layers - 1)}
        del result["kda.safe_gate"]
    if architecture in ("hy_v4", "deepseek4"):
        result |= {"swiglu_clamp_exp": 10.0, "expert_weights_scale": 1.0, "expert_weights_norm": True}
    if architecture == "maple":
        result["swiglu_clamp_exp"] = 7.0
    if architecture == "hrm_text":
        result |= {"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2}
    return result | _streams(architecture, layers, width)


def vocabulary(architecture: str) -> int:
    """Tokens: as many as a speech codec of it or its images need, where it has such."""
    return {"chameleon": 10240, "qwen3tts": 3072}.get(architecture, VOCABULARY)


def _sizes(architecture: str) -> tuple[int, int, int, int]:
    """Layers, width, heads, and the width of an MLP."""
    layers = {"gemma4": 5, "gemma3n": 22, "nemotron_h": 3, "nemotron_h_moe": 3, "hrm_text": 6}.get(architecture, 4)
    if architecture in LATENT:
        return layers, 128, 1, 192
    narrow = {
        "gemma4": (128, 2, 192),
        "gemma3n": (64, 1, 96),
        "deepseek4": (512, 8, 1024),
        "step35": (160, 2, 384),
        "laguna": (160, 2, 384),
    }
    heads = 4 if architecture in ("qwen3", "muse-glimmer", "afmoe") else 2
    return (layers, *narrow.get(architecture, (256, heads, 384)))


def _attention(architecture: str, layers: int, width: int, heads: int) -> dict[str, Any]:
    each = width // heads
    by_layer = [0 if layer == 1 else heads for layer in range(layers)]
    shared = {"qwen3": 1, "muse-glimmer": 2, "afmoe": 2, "deepseek4": 1}.get(architecture, heads)
    hybrid = architecture in HYBRID
    sections = [8, 12, 12, 0] if architecture == "bailingmoe3" else [each // 4] * 4
    result = {
        "attention.head_count": by_layer if hybrid and architecture != "glm5-next" else heads,
        "attention.head_count_kv": by_layer if hybrid else shared,
        "attention.max_alibi_bias": 8.0,
        "attention.clamp_kqv": 1.0,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5,
        "attention.group_norm_groups": 8,
        "attention.q_lora_rank": 64 if architecture == "deepseek4" else 512,
        "attention.kv_lora_rank": 512,
        "attention.relative_buckets_count": 8,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": [layer % 2 for layer in range(layers)] if architecture in ALTERNATING else 2,
        "attention.indexer.head_count": heads if architecture == "minimax-m3" else 64,
        "attention.indexer.key_length": each if architecture == "qwen4exp" else 128,
        "attention.indexer.top_k": 131072,
        "attention.indexer.block_size": 4,
        "attention.indexer.kpool": 4,
        "attention.indexer.kpool_select_tail": True,
        "attention.indexer.local_blocks": 1,
        "rope.dimension_sections": sections,
    }
    if architecture in ("dots3note", "hy_v4"):
        result["attention.indexer.types"] = [0 if layer % 2 else 1 for layer in range(layers)]
    return result | _heads(architecture, each)


def _heads(architecture: str, each: int) -> dict[str, Any]:
    """The sizes of keys and values, where they are not `each`."""
    if architecture == "minimax-m3":
        return {"rope.dimension_count": 64}
    if architecture == "deepseek4":
        return {"attention.key_length": each, "attention.value_length": each, "rope.dimension_count": each // 2}
    if architecture == "gemma4":
        own = {f"attention.{which}_length_swa": each for which in ("key", "value")}
        more = {"attention.shared_kv_layers": 0, "rope.freq_base_swa": 10000.0, "attention.sliding_window_pattern": 5}
        return {**own, **more, "embedding_length_per_layer_input": 2 * each // 2}
    if architecture not in LATENT:
        return {}
    key, turned = (512, 0) if architecture == "glm5-next" else (576, 64)
    sizes = {"key_length": key, "value_length": 512, "key_length_mla": 192, "value_length_mla": 128}
    result: dict[str, Any] = {f"attention.{name}": value for name, value in sizes.items()}
    result["rope.dimension_count"] = turned
    if architecture == "dots3note":
        result |= {f"attention.{name}_swa": value for name, value in sizes.items()}
        result |= {"attention.kv_lora_rank_swa": 512, "rope.freq_base_swa": 10000.0}
    return result


def _states(architecture: str, width: int, heads: int) -> dict[str, Any]:
    return {
        "ssm.inner_size": 256 if architecture in SSM_OF_256 else 2 * width,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.time_step_rank": heads,
        "ssm.group_count": 0 if architecture == "plamo2" else 2,
    }


def _experts(architecture: str, hidden: int) -> dict[str, Any]:
    return {
        "expert_feed_forward_length": hidden,
        "expert_shared_feed_forward_length": hidden // 2,
        "expert_latent_length": hidden,
        "interleave_moe_layer_step": 2,
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_gating_func": 4 if architecture == "deepseek4" else 2,
        "expert_group_scale": 1.0,
        "experts_per_group": 1,
    }


def _streams(architecture: str, layers: int, width: int) -> dict[str, Any]:
    """Several residual streams, and embeddings of several tokens."""
    result: dict[str, Any] = {}
    if architecture in ("qwen4exp", "glm5-next", "hy_v4", "deepseek4"):
        result |= {"hyper_connection.count": 4, "hyper_connection.epsilon": 1e-6}
    if architecture != "hy_v4" and result:
        result["hyper_connection.sinkhorn_iterations"] = 2
    if architecture == "hy_v4":
        result["hyper_connection.magnitude"] = 2.0
    if architecture == "deepseek4":
        result |= {
            "attention.output_group_count": 8,
            "attention.output_lora_rank": 32,
            "attention.compress_ratios": [0, 0, 4, 128],
            "attention.compress_rope_freq_base": 160000.0,
            "hash_layer_count": 0,
        }
    if architecture in ("qwen4exp", "glm5-next"):
        sizes = [vocabulary(architecture)] * 4
        result |= {
            "hyper_connection.low_rank": 8,
            "attention.compress_ratios": [4] * layers,
            "ple.layers": [0],
            "ple.ngram_size": 3,
            "ple.heads_per_ngram": 2,
            "ple.conv_kernel": 4,
            "ple.eos_token_id": 0,
            "embedding_length_per_layer_input": width // 4,
            "ple.layer_multipliers": np.array([1, 3, 5], dtype=np.uint64),
            "ple.head_offsets": np.array([head * sizes[0] for head in range(4)], dtype=np.uint64),
            "ple.head_vocab_sizes": np.array(sizes, dtype=np.uint64),
        }
    return result
