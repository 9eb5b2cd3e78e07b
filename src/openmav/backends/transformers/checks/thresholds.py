"""Lengths at which a configuration changes what a model computes: windows, sparse attention, chunks, rotary switches.

To compare computations beyond them on a short text they are lowered temporarily, in the configuration and in every module that
copied them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import nn

LOW = 8  # tokens that a longer length is lowered to
NAMES = frozenset(
    {"sliding_window", "sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size", "index_topk"}
    | {"original_max_position_embeddings", "chunk_size", "mamba_chunk_size"}
    | {"keep_window_size", "lsh_attn_chunk_length", "local_attn_chunk_length", "chunk_length"}
)
FIXED = frozenset({"compress_rate", "compress_rates"})  # tokens of a block; weights have that shape, so they can't be lowered
LONGEST = 512  # tokens of a text that crosses one of those
DYNAMIC = frozenset(
    {"max_position_embeddings", "original_max_seq_len", "max_seq_len_cached"}
)  # of rotary positions that grow with the text


def find(config: Any) -> dict[str, int]:
    """{name: tokens} of the lengths that a text model's configuration names; the largest where a name has several."""
    result: dict[str, int] = {}
    for name, value in _numbers(config, _names(config) | FIXED):
        if 1 < value < (getattr(config, "max_position_embeddings", None) or value + 1) or name in DYNAMIC:
            result[name] = max(value, result.get(name, 0))
    return result


def length_past(lengths: Mapping[str, int]) -> int:
    """Tokens of a text that is longer than each of these lengths once they are lowered."""
    fixed = [value for name, value in lengths.items() if name in FIXED and value <= LONGEST]
    return max(2 * LOW, *fixed) + 3 if fixed else 2 * LOW + 3


@contextmanager
def lowered(model: nn.Module, config: Any) -> Iterator[None]:
    """Context manager: every such length is at most LOW inside it; all are restored after it."""
    undo: list[tuple[MutableMapping[str, Any], str, Any]] = []
    names = _names(config)
    try:
        for values in _places(model, config):
            _lower(values, names, undo)
        yield
    finally:
        for values, name, value in reversed(undo):
            values[name] = value


def _names(config: Any) -> frozenset[str]:
    return NAMES | DYNAMIC if any("dynamic" in str(kind) for kind in _rope_types(vars(config))) else NAMES


def _rope_types(values: Mapping[str, Any]) -> Iterator[object]:
    for name, value in values.items():
        if name in ("rope_type", "type"):
            yield value
        elif isinstance(value, Mapping) and ("rope" in name or "attention" in name):
            yield from _rope_types(value)


def _numbers(config: Any, names: frozenset[str]) -> Iterator[tuple[str, int]]:
    """All lengths of these names in a configuration, and in the mappings inside it."""
    waiting: list[Mapping[str, Any]] = [vars(config)]
    while waiting:
        for name, value in waiting.pop().items():
            inside = value.values() if isinstance(value, Mapping) and name in names else (value,)
            if name in names:
                yield from ((name, one) for one in inside if isinstance(one, int) and not isinstance(one, bool))
            elif isinstance(value, Mapping):
                waiting.append(value)


def _places(model: nn.Module, config: Any) -> Iterator[MutableMapping[str, Any]]:
    """The attributes of the configurations and of the modules."""
    configs = {id(one): one for one in (config, *(vars(module).get("config") for module in model.modules())) if one is not None}
    yield from (vars(one) for one in configs.values())
    yield from (vars(module) for module in model.modules())


def _lower(values: MutableMapping[str, Any], names: frozenset[str], undo: list[tuple[MutableMapping[str, Any], str, Any]]) -> None:
    for name, value in list(values.items()):
        if name in names and isinstance(value, int) and not isinstance(value, bool) and value > LOW:
            undo.append((values, name, value))
            values[name] = LOW
        elif isinstance(value, dict) and name in names:
            _lower(value, frozenset(value), undo)
        elif isinstance(value, dict) and not name.startswith("_"):
            _lower(value, names, undo)
