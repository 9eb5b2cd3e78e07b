"""Keys of a GGUF file that transformers' loader does not read: applied to the configuration, or refused in one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.errors import LoadError

SHAPES = {  # keys that the shapes of weights show, or that change no number
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count"),
    *("attention.head_count_kv", "expert_count", "expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_shared_count"),
    *("pooling_type", "tensor_data_layout", "nextn_predict_layers", "rope.scaling.finetuned", "attention.relative_buckets_count"),
}
SAME_NAME = {  # keys and the names that configurations have for the same number
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "norm_epsilon", "layer_norm_eps", "layer_norm_epsilon"),
    "attention.key_length_swa": ("head_dim",),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
    "attention.sliding_window": ("sliding_window",),
    "attention.clamp_kqv": ("clip_qkv",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "router_logit_softcapping": ("router_logit_softcapping",),
    "embedding_scale": ("embedding_multiplier",),
    "residual_scale": ("residual_multiplier",),
    "use_parallel_residual": ("use_parallel_residual",),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
    "expert_weights_scale": ("routed_scaling_factor",),
    "leading_dense_block_count": ("first_k_dense_replace",),
}
NUMERIC = (  # keys that change numbers where they are set, whatever the model; what follows a name counts too
    *("attention.", "rope.", "expert_", "logit_scale", "embedding_scale", "residual_scale", "router_", "attn_logit", "final_logit"),
    *("use_parallel_residual", "activation_sparsity", "altup.", "swiglu_", "swin_norm", "interleave_moe", "moe_every", "leading_dense"),
)
NEUTRAL: tuple[Any, ...] = (0, False, [], "", None)
ROPE_KEPT = ("rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved", "truncate")
UNSCALED = ("none", "")
ORIGINAL = "original_max_position_embeddings"


def apply(name: str, config: Any, header: GgufHeader, read: frozenset[str]) -> tuple[str, ...]:
    """Change a configuration to what the file says; `read` are the keys of the architecture that the loader took. Notes, a line each.

    Raises LoadError where the file says what this architecture of transformers can't compute.
    """
    own = header.own
    notes: list[str] = []
    unknown: list[str] = []
    _rope_scaling(name, config, header, own)
    for key, value in own.items():
        if key in read or key.startswith("rope.scaling.") or key == "rope.scale_linear" or _set(config, key, value, own):
            continue
        if key in SHAPES or value in NEUTRAL:
            continue
        if key.startswith(NUMERIC):
            raise LoadError(f"{name} says {header.architecture}.{key} = {value}, which transformers can't apply to this architecture")
        unknown.append(key)
    if unknown:
        notes.append(f"keys of the file that are not used: {', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}")
    return tuple(notes)


def _set(config: Any, key: str, value: Any, own: Mapping[str, Any]) -> bool:
    """Apply a key to the configuration; whether that was possible."""
    special = SPECIAL.get(key)
    if special is not None:
        return special(config, value, own)
    for name in SAME_NAME.get(key, ()):
        if getattr(config, name, None) is not None or name in _defaults(config):
            setattr(config, name, value)
            return True
    return False


def _defaults(config: Any) -> Mapping[str, Any]:
    """The settings that this class of configurations knows."""
    known: Mapping[str, Any] = type(config)().to_dict()
    return known


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _attention_scale(config: Any, value: float, _own: Mapping[str, Any]) -> bool:
    """The factor of attention scores: 1 / sqrt(head_dim) in nearly every model."""
    if getattr(config, "query_pre_attn_scalar", None):
        config.query_pre_attn_scalar = round(value**-2)  # a whole number: the width of a head, or of a share of the stream
        return True
    if hasattr(config, "attention_multiplier"):
        config.attention_multiplier = value
        return True
    return value == 0 or math.isclose(value, _head_dim(config) ** -0.5, rel_tol=1e-5)


def _logit_scale(config: Any, value: float, _own: Mapping[str, Any]) -> bool:
    if hasattr(config, "logits_scaling"):  # Granite divides, and its key is what it divides by
        config.logits_scaling = value
        return True
    if hasattr(config, "logit_scale"):
        config.logit_scale = value
        return True
    return value in (0, 1)


def _value_length(config: Any, value: int, own: Mapping[str, Any]) -> bool:
    """Values as wide as keys, unless the configuration has a width of their own."""
    return int(value) == int(getattr(config, "v_head_dim", None) or own.get("attention.key_length") or _head_dim(config))


def _sliding_value_length(_config: Any, value: int, own: Mapping[str, Any]) -> bool:
    return bool(value == own.get("attention.key_length_swa", own.get("attention.key_length")))


def _rotary_width(config: Any, value: int, own: Mapping[str, Any]) -> bool:
    """Rotary positions in the first `value` of the dimensions of a head."""
    width = int(own.get("attention.key_length", 0)) or _head_dim(config)
    share, rope = value / width, _rope(config)
    if rope is None or _own_scaling(rope) or math.isclose(share, _rotary_share(config)):
        return True
    if "partial_rotary_factor" not in {*_defaults(config), *rope} and not hasattr(config, "partial_rotary_factor"):
        return False
    if hasattr(config, "partial_rotary_factor"):
        config.partial_rotary_factor = share
    rope["partial_rotary_factor"] = share
    return True


def _rotary_share(config: Any) -> float:
    rope = _rope(config) or {}
    return float(rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0)


def _theta(config: Any, value: float, _own: Mapping[str, Any], kind: str = "full_attention") -> bool:
    rope = _rope(config, kind)
    if rope is None:
        return False
    rope["rope_theta"] = value
    return True


def _sliding_theta(config: Any, value: float, own: Mapping[str, Any]) -> bool:
    if _by_kind(config):
        return _theta(config, value, own, "sliding_attention")
    return math.isclose(value, float((_rope(config) or {}).get("rope_theta", 0.0)))


def _sliding_pattern(config: Any, value: Any, own: Mapping[str, Any]) -> bool:
    """Which layers use a sliding window: all but each n-th, or one flag per layer."""
    layers = int(config.num_hidden_layers)
    if isinstance(value, list):
        flags = [bool(flag) for flag in value]
    else:
        flags = [(i + 1) % int(value) != 0 for i in range(layers)] if value else []
    if not flags or not getattr(config, "layer_types", None):
        return not flags
    config.layer_types = ["sliding_attention" if flag else "full_attention" for flag in flags[:layers]]
    return True


SPECIAL: dict[str, Callable[[Any, Any, Mapping[str, Any]], bool]] = {
    "attention.scale": _attention_scale,
    "logit_scale": _logit_scale,
    "attention.value_length": _value_length,
    "attention.value_length_swa": _sliding_value_length,
    "expert_gating_func": lambda config, value, _own: int(value) == 1 or hasattr(config, "scoring_func"),
    "attention.causal": lambda _config, value, _own: value is True,
    "attention.sliding_window_pattern": _sliding_pattern,
    "rope.dimension_count": _rotary_width,
    "rope.dimension_count_swa": lambda config, value, _own: int(value) == _head_dim(config),
    "rope.freq_base": _theta,
    "rope.freq_base_swa": _sliding_theta,
}


# ---- rotary positions -----------------------------------------------------------------------------------------------------------


def _by_kind(config: Any) -> bool:
    rope = getattr(config, "rope_parameters", None)
    return isinstance(rope, dict) and isinstance(rope.get("full_attention"), dict)


def _rope(config: Any, kind: str = "full_attention") -> dict[str, Any] | None:
    """The rotary settings of a configuration, those of one kind of layers where the kinds differ; None if it has none."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict):
        return None
    own: dict[str, Any] = rope[kind] if _by_kind(config) else rope
    return own


def _own_scaling(rope: Mapping[str, Any]) -> bool:
    """Whether an architecture scales its rotary positions whatever a file says, as Gemma 4 and gpt-oss do."""
    return str(rope.get("rope_type", "default")) != "default"


def _rope_scaling(name: str, config: Any, header: GgufHeader, own: Mapping[str, Any]) -> None:
    try:
        scaling = _scaling(header, own, int(getattr(config, "max_position_embeddings", 0) or 0))
    except (KeyError, ValueError) as error:
        raise LoadError(f"{name} scales its rotary positions in a way that mav can't apply ({error})") from error
    if scaling is None:
        return
    rope = _rope(config)
    if rope is None:
        raise LoadError(f"{name} scales its rotary positions, which transformers can't do for this architecture ({header.architecture})")
    if _own_scaling(rope) and rope["rope_type"] != scaling["rope_type"]:
        return  # checked against the file's factors once the model is loaded
    for key in [key for key in rope if key not in ROPE_KEPT]:
        del rope[key]
    rope.update(scaling)
    if ORIGINAL in scaling and hasattr(config, ORIGINAL):
        setattr(config, ORIGINAL, scaling[ORIGINAL])


def _scaling(header: GgufHeader, own: Mapping[str, Any], context: int) -> dict[str, Any] | None:
    """transformers' rope parameters for a file's scaling; None where positions are not scaled.

    `rope_freqs` divides each frequency, which is LongRoPE with one list of factors. Raises ValueError for what has no counterpart.
    """
    kind, factor = _kind_and_factor(own)
    long, short = header.floats("rope_factors_long.weight"), header.floats("rope_factors_short.weight")
    freqs = header.floats("rope_freqs.weight")
    original = int(own.get("rope.scaling.original_context_length", 0)) or context
    attention = float(own.get("rope.scaling.attn_factor", 0) or own.get("rope.scaling.yarn_attn_factor", 0)) or None
    if long is not None and short is not None:
        return _longrope(long, short, original, context / original, attention)
    if freqs is not None and any(value != 1 for value in freqs):
        if kind not in UNSCALED:
            raise ValueError(f"rope_freqs together with {kind} scaling")
        return _longrope(freqs, freqs, context, 1.0, 1.0)
    if kind in UNSCALED or (factor == 1 and attention is None):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ValueError(f"{kind} scaling")
    return {"rope_type": "yarn", "factor": factor, ORIGINAL: original, **_yarn(own, factor, attention)}


def _longrope(long: list[float], short: list[float], original: int, factor: float, attention: float | None) -> dict[str, Any]:
    known = {} if attention is None else {"attention_factor": attention}
    return {"rope_type": "longrope", "long_factor": long, "short_factor": short, ORIGINAL: original, "factor": factor, **known}


def _kind_and_factor(own: Mapping[str, Any]) -> tuple[str, float]:
    kind = str(own.get("rope.scaling.type", ""))
    if "rope.scale_linear" in own and not kind:  # files from before August 2023
        return "linear", float(own["rope.scale_linear"])
    factor = float(own.get("rope.scaling.factor", 0))
    if kind in ("linear", "yarn") and factor <= 0:
        raise ValueError(f"{kind} scaling without a factor")
    return kind or ("linear" if factor not in (0, 1) else ""), factor


def _yarn(own: Mapping[str, Any], factor: float, attention: float | None) -> dict[str, float]:
    """The settings of YaRN beside its factor; llama.cpp multiplies the attention factor of the file with 1 + 0.1 ln(factor)."""
    for key, usual in (("rope.scaling.yarn_ext_factor", (-1, 0, 1)), ("rope.scaling.yarn_log_multiplier", (0,))):
        if own.get(key, usual[0]) not in usual:
            raise ValueError(f"{key} = {own[key]}")
    beta = {"beta_fast": own.get("rope.scaling.yarn_beta_fast", 0), "beta_slow": own.get("rope.scaling.yarn_beta_slow", 0)}
    settings = {key: float(value) for key, value in beta.items() if value}
    if attention is not None:
        settings["attention_factor"] = attention * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return settings
