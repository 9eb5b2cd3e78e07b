"""A tiny configuration of any model type of transformers, derived from the type's own default configuration.

The default names what a model of the type has: each name that is a size gets a small one, each list with an entry for every layer is
shortened so that all its kinds of layers stay, each length at which something changes (windows, chunks, top-k) becomes small enough to be
crossed by a text of TOKENS tokens. `OWN` holds what can't be derived that way, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

CAUSAL: tuple[str, ...] = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
IMAGE_TEXT: tuple[str, ...] = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
TYPES: tuple[str, ...] = tuple(sorted({*CAUSAL, *IMAGE_TEXT}))
TOKENS = 304  # of the text that is read: more than any threshold below
LAYERS, OTHER_LAYERS = 4, 2  # of the decoder; of encoders for images and sound, which no text runs through
VOCAB = 160
WINDOW = 24
SIDE = re.compile(r"vision|audio|image|encoder|qformer|perceiver|vq|sam|codec|vit|dit|depth|speech|projector|resampler|patcher")
SPECIAL = re.compile(r"_token_(id|index)$|^(image_patch_id|im_(start|end|newline)_id|eod_token_id)$")

RULES: tuple[tuple[str, Any], ...] = (  # the first whose pattern is the whole name; the sizes belong together
    (r"(num_)?(hidden_)?layers|n_layers?|(num_)?(en|de)coder_layers|num_(en|de)coder_layers|depth|num_blocks", LAYERS),
    (r"num_key_value_heads|kv_n_heads|num_kv_heads|num_query_groups|(swa|sliding|global|full)_num_key_value_heads", 2),
    (r"num_global_key_value_heads", 2),
    (r"(num_)?(attention_|sliding_attention_)?heads|n_heads?|(num_)?(en|de)coder_attention_heads|num_(en|de)coder_attention_heads", 4),
    (r"num_attention_heads|swa_num_attention_heads|resampler_(n_)?heads", 4),
    (
        r"(swa_)?head_dim|d_head|d_kv|dim_head|attention_head_size|kv_channels|global_head_dim|(swa_)?v_head_dim|resampler_(dim_head|head_dim)",
        16,
    ),
    (r"qk_nope_head_dim|qk_head_dim_nope", 8),
    (r"qk_rope_head_dim|rotary_dim", 8),
    (r"qk_head_dim", 16),
    (r"(kv|q|o)_lora_rank|gated_norm_rank|adapter_rank|laurel_rank|hc_lowrank|router_hidden_size|d_rel", 16),
    (
        r"hidden_size|d_model|n_embd|dim_model|embed_dim|emb(edding)?_dim|embedding_size|(text|vision|image_text|audio|decoder)_hidden_size",
        64,
    ),
    (r"attention_hidden_size|word_embed_proj_dim|(in|out)put_embedding_size|lru_width|hidden_size_global|backbone_hidden_size", 64),
    (r"out(put)?_hidden_size|output_dim|projection_dim|encoder_hidden_size|.*projector_hidden_size|input_embedding_size", 64),
    (r"(moe|expert|shared_expert|shared_experts|moe_shared_expert|share_expert)_(ffn_)?(intermediate_size|hidden_size|dim)", 32),
    (r"expert_ffn_hidden_size|moe_hidden_size|shared_intermediate_size", 32),
    (
        r"(dense_)?intermediate_size(_mlp)?|(encoder_|decoder_)?ffn_(dim|hidden_size)|n_inner|d_ff|dff|dim_ff|feed_forward_size|d_inner|mlp_dim",
        128,
    ),
    (r"adapter_input_size|adapter_(in|out)_dim", 64),
    (r"aligner_ffn_mult|.*merged_hidden_size|projection_(hidden|intermediate)_(dim|size)|alignment_intermediate_size|prompt_mid_dim", 64),
    (r"(moe_)?num_(local_)?experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok(en)?|moe_(top_?)?k|moe_topk|top_k_experts", 2),
    (r"(num|n|moe_num)_shared_experts", 1),
    (r"n_group|topk_group|num_expert_group|moe_layer_start_index|first_k_dense_replace|num_dense_layers", 1),
    (r"moe_layer_end_index", LAYERS - 1),
    (r"(mamba_)?(d_state|state_size)|ssm_state_size|mamba_d_state", 8),
    (r"(mamba_)?dt_rank|time_step_rank", 4),
    (r"mamba_(n|num)_heads|n_mamba_heads", 8),
    (r"mamba_(d_head|head_dim|headdim)", 16),
    (r"(mamba_)?n_?groups", 1),
    (r"(mamba_)?chunk_size|attention_chunk_size|index_head_dim", 16),
    (r"linear_num_key_heads", 2),
    (r"linear_num_value_heads|linear_num_heads", 4),
    (r"linear_(key|value)_head_dim|linear_head_dim", 16),
    (r"sliding_window(_size)?|attention_window_size|local_attention(_window_len)?|keep_window_size", WINDOW),
    (r"index_n_heads", 16),  # few heads of an indexer give many scores of exactly 0, and which of those are chosen is chance
    (r"index_topk(_blocks)?", 16),
    (
        r"max_position_embeddings|n_positions|max_seq_len|max_sequence_length|model_max_length|n_ctx|context_length|max_target_positions",
        512,
    ),
    (r"original_max_position_embeddings", 64),
    (
        r"vocab_size|decoder_vocab_size|vocab_size_per_layer_input|audio_vocab_size|(pronunciation|shape)_vocab_size|unpadded_vocab_size",
        VOCAB,
    ),
    (r"hidden_size_per_layer_input|ple_embed_dim|(pronunciation|shape)_embed_dim", 16),
    (r"query_pre_attn_scalar", 16),
    (r"num_kv_shared_layers", 2),
    (r"n_layers_per_attn_res_block", 2),
    (r"floor_scale|log_scaling_n_floor", 64),
    (r"num_nextn_predict_layers", 0),
    (r"codebook_size|num_embeddings", 64),
    (r"ngram_vocab_size_base", 64),
    (r"rel_extent|relative_max_distance|relative_attention_max_distance", 64),
)
_LENGTH = re.compile(
    r"sliding_window(_size)?|attention_window_size|local_attention(_window_len)?|window_size|keep_window_size|attention_chunk_size|"
    r"index_topk(_blocks)?|index_block_size|indexer_budget|(mamba_)?chunk_size|block_size|(lsh|local)_attn_chunk_length|floor_scale|log_scaling_n_floor"
)
_RULES = tuple((re.compile(pattern), value) for pattern, value in RULES)
_SIDE_LAYERS = re.compile(RULES[0][0])
_CODES = {"base_channels": 32, "channel_multiplier": [1, 1, 2, 2], "embed_dim": 8, "num_embeddings": 64}
_INDEXER = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 32, "indexer_compress_ratio": 4}
_IMAGES = {  # in place of an encoder that needs a package of its own: no text runs through it
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "model_args": {"embed_dim": 64},
}
_NO_EMBEDDINGS_A_LAYER = {
    "model_type": "gemma4_text",
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "num_kv_shared_layers": 30,
}
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
_DOTS3 = {"per_layer_config": {i: {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 24} for i in (1, 3)}}
OWN: dict[str, dict[str, Any]] = {  # what can't be derived: sizes that hang together in a way of the type's own, and defaults that are none
    "bamba": {"attn_layer_indices": [1, 3]},
    "big_bird": {"attention_type": "original_full"},  # the only one that it writes text with
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "chameleon": {"vocabulary_map": {"<image>": 159, **{f"IMGIMG{a}Z": 100 + i for i, a in enumerate("ABCDEFGH")}}, "vq_config": _CODES},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}}},
    "falcon_h1": {"mamba_d_ssm": 128},
    "fast_vlm": {"_start": {"vision_config": _IMAGES}},
    "florence2": {
        "vision_config": {"embed_dim": [16, 16, 32, 64], "num_heads": [1, 1, 2, 4], "num_groups": [1, 1, 2, 4], "depths": [1] * 4}
    },
    "gemma4_assistant": {"_start": {"text_config": _NO_EMBEDDINGS_A_LAYER}, "text_config": {"num_kv_shared_layers": LAYERS}},
    "gemma3n": {"_replaced": {"vision_config": {**_IMAGES, "rms_norm_eps": 1e-6, "vocab_offset": VOCAB, "vocab_size": 8}}},
    **{
        name: {"text_config": _SECTIONS}
        for name in ["glm46v", "glm4v", "glm_ocr", "glmga", "hunyuan_vl", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"]
    },
    "glm4v_moe": {
        "text_config": {"rope_parameters": {**_SECTIONS["rope_parameters"], "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}}
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "granite4_vision": {"deepstack_layer_map": [], "downsample_rate": "1/2"},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "janus": {"vq_config": _CODES},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
    "lfm2_vl": {"text_config": {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "muse_spark": {"audio_config": {"hidden_sizes": [16, 32], "depths": [1, 1], "patch_sizes": [16, 6]}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "perception_lm": {"_start": {"vision_config": _IMAGES}},
    "qwen2_5_omni_thinker": {"text_config": _SECTIONS, "vision_start_token_id": VOCAB - 9},  # which checkpoints have, and the default lacks
    "qwen3_omni_moe_thinker": {"vision_start_token_id": VOCAB - 9},
    "qwen4_exp_text": _INDEXER,
    "qwen4_exp": {"text_config": _INDEXER},
    "reformer": {"hash_seed": 0, "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [32, 32]},
    "step3p7": {"text_config": {"sliding_window": WINDOW}},
    "unlimited_ocr": {"text_config": {"num_key_value_heads": 4}},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_head_dim": 32, "attention_hidden_size": 128},
    "zamba2": {"attention_head_dim": 32, "attention_hidden_size": 128, "kv_channels": 16, "mamba_headdim": 16, "hybrid_layer_ids": [1, 3]},
    "zaya": {"num_experts_per_tok": 1},
}


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64, **more}}


_LONG = {"short_factor": [1.0 + i / 16 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # of a type: what it can do that its default configuration does not
    "llama yarn": ("llama", _rope("yarn")),
    "llama dynamic": ("llama", {**_rope("dynamic"), "max_position_embeddings": 64}),
    "llama longrope": ("llama", _rope("longrope", **_LONG)),
    "llama linear": ("llama", _rope("linear")),
    "phi3 longrope": ("phi3", {**_rope("longrope", **_LONG), "original_max_position_embeddings": 64}),
    "qwen2 windows": ("qwen2", {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"] * 2}),
    "phi3 windows": ("phi3", {"sliding_window": WINDOW}),
    "starcoder2 windows": ("starcoder2", {"sliding_window": WINDOW}),
    "falcon alibi": ("falcon", {"alibi": True, "parallel_attn": False, "multi_query": False, "num_kv_heads": 4}),
    "falcon grouped": ("falcon", {"new_decoder_architecture": True}),
    "bloom after": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "gpt_neox one after another": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True}),
    "opt norms after": ("opt", {"do_layer_norm_before": False}),
    "granite multipliers": ("granite", {"residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    "bert as an encoder": ("bert", {"is_decoder": False}),
    "roberta as an encoder": ("roberta", {"is_decoder": False}),
    "doge experts": ("doge", {"is_moe": True}),
    "gpt2 scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
}


def tiny_config(model_type: str, **changes: Any) -> Any:
    """The tiny configuration of a type or variant; `changes` go over what was derived. Raises what transformers raises."""
    if model_type in VARIANTS:
        model_type, own_changes = VARIANTS[model_type]
        changes = merge(own_changes, changes)
    own = dict(OWN.get(model_type, {}))
    start, replaced = own.pop("_start", {}), own.pop("_replaced", {})
    wanted = merge(merge(derived(AutoConfig.for_model(model_type, **start)), start), own)
    config = AutoConfig.for_model(model_type, **merge(wanted, changes))
    for name, part in replaced.items():
        vars(config)[name] = AutoConfig.for_model(**part)  # past the check of its type
    return config


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, what stands in `over` before what stands in `base`, also inside sub-configurations; None as a value takes a name away."""
    merged = dict(base)
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and name != "rope_parameters":
            merged[name] = merge(merged[name], value)
        else:
            merged[name] = value
    return merged


def thresholds(config: Any) -> dict[str, int]:
    """The lengths at which this configuration changes something, {name: tokens}, all crossed by a text of TOKENS."""
    text = config.get_text_config(decoder=True)
    found = {n: v for n, v in vars(text).items() if _LENGTH.fullmatch(n) and isinstance(v, int) and 0 < v < TOKENS}
    ropes = [text.rope_parameters] if isinstance(getattr(text, "rope_parameters", None), dict) else []
    ropes += [inside for rope in ropes for inside in rope.values() if isinstance(inside, dict)]
    for rope in ropes:
        if rope.get("rope_type") in ("dynamic", "longrope", "yarn", "llama3"):
            found[f"{rope['rope_type']} rope"] = int(rope.get("original_max_position_embeddings") or text.max_position_embeddings)
    return found


def derived(config: PretrainedConfig, side: bool = False) -> dict[str, Any]:
    """The arguments that make a configuration tiny; `side`: of an encoder for images or sound."""
    depth = _depth(config)
    found: dict[str, Any] = {}
    special = VOCAB - 1
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            found[name] = {"model_type": value.model_type, **derived(value, side or bool(SIDE.search(name)))}
        elif SPECIAL.search(name) and isinstance(value, (int, list)) and not isinstance(value, bool) and not side:
            found[name] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}.get(name, special)
            special -= name not in ("pad_token_id", "bos_token_id", "eos_token_id")
        elif name == "is_decoder" and not side and not config.is_encoder_decoder:
            found[name] = True
        elif name == "rope_parameters" and isinstance(value, dict):
            found[name] = _short_rope(value)
        elif isinstance(value, bool) or name.startswith("_") or name in ("id2label", "label2id"):
            continue
        elif isinstance(value, (list, tuple)) and len(value) == depth and depth > LAYERS:
            size = _small(name, value[0], config, side) if isinstance(value[0], int) else None
            count = OTHER_LAYERS if side else LAYERS
            found[name] = [size] * count if size is not None and len(set(value)) < count else _of_layers(list(value), count)
        elif isinstance(value, (int, type(None))) and (small := _small(name, value, config, side)) is not None:
            found[name] = small
    return found


def _depth(config: PretrainedConfig) -> int:
    return next((v for n, v in vars(config).items() if _SIDE_LAYERS.fullmatch(n) and isinstance(v, int)), 0)


def _small(name: str, value: int | None, config: PretrainedConfig, side: bool) -> int | None:
    """The small value of a size; None where it stays as it is."""
    small = next((size for pattern, size in _RULES if pattern.fullmatch(name)), None)
    if small is None or value == 0 or (value is None and name not in ("head_dim", "num_key_value_heads", "num_experts_per_tok")):
        return None
    if _SIDE_LAYERS.fullmatch(name):
        return OTHER_LAYERS if side else LAYERS
    if name == "num_key_value_heads" and "kv_lora_rank" in vars(config):
        return 4
    if name == "head_dim" and value is not None and value == vars(config).get("qk_rope_head_dim"):
        return 8
    if side and value is not None:
        return min(value, int(small))
    return int(small)


def _short_rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary parameters, of one kind of layer or of several, whose switch comes early and whose sections fit a head of 16."""
    small: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            small[name] = _short_rope(value)
        elif name == "original_max_position_embeddings":
            small[name] = 64
        elif name == "mrope_section":
            small[name] = [4, 2, 2]
        else:
            small[name] = value
    return small


def _of_layers(values: list[Any], count: int) -> list[Any]:
    """`count` entries of a list that has one for each layer, in which each kind occurs; a list of layers' numbers keeps the low ones."""
    if all(isinstance(v, int) for v in values) and len(set(values)) == len(values):
        return [v for v in values if v < count]
    try:
        kinds = list(dict.fromkeys(values))
    except TypeError:
        return values[:count]
    return [kinds[i % len(kinds)] for i in range(count)]
