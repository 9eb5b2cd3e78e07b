"""Sizes in a configuration: how many tokens the model can read, how wide it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def context_of(config: Any) -> int | None:
    """Tokens of the longest text that a text model's configuration allows; None where it names no limit.

    Rotary positions that are scaled reach further: `factor` times the length before scaling for YaRN, `factor` times
    `max_position_embeddings` for linear and dynamic scaling. For LongRoPE and Llama 3 `max_position_embeddings` includes it already.
    """
    named = next((value for name in LENGTHS if isinstance(value := getattr(config, name, None), int) and value > 0), None)
    if named is None:
        return None
    return max([named, *(_scaled(named, rope) for rope in rope_settings(config))])


def rope_settings(config: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary settings of a configuration; one per kind of layer where the kinds differ."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    for settings in (rope, *rope.values()) if isinstance(rope, Mapping) else ():
        if isinstance(settings, Mapping) and ("rope_type" in settings or "type" in settings):
            yield settings


def _scaled(named: int, rope: Mapping[str, Any]) -> int:
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
    if not isinstance(factor, int | float):
        return named
    if kind == "yarn":
        return int(factor * (rope.get("original_max_position_embeddings") or named))
    return int(factor * named) if kind in ("linear", "dynamic") else named


def largest(config: Any, name: str) -> int:
    """A number of a configuration, the largest one where layers differ; 0 where it has none."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers asks to read it layer by layer
        value = max((getattr(layer, name, None) or 0 for layer in config.per_layer_config), default=0)
    return max(value, default=0) if isinstance(value, list) else int(value or 0)
