"""KV cache layers that grow in place: a buffer that doubles, instead of a copy of everything at each token.

They behave like transformers' own dynamic layers and keep every token, including those outside of a sliding window, so that any
number of tokens can be undone, any number of times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

ROOM = 256  # spare tokens of a new buffer


class _Buffers:
    """Two buffers [batch, kv heads, capacity, head size] whose first tokens are `keys` and `values` of the layer."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extended(self, used: Tensor | None, new: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
        """`new` written after `used`; returns (buffer, all tokens). `used` is copied only when it does not lie in the buffer."""
        length = 0 if used is None else used.shape[-2]
        need = length + new.shape[-2]
        ours = buffer is not None and (length == 0 or (used is not None and used.data_ptr() == buffer.data_ptr()))
        if buffer is None or not ours or buffer.shape[-2] < need or buffer.shape[:2] != new.shape[:2]:
            bigger = new.new_empty((*new.shape[:2], max(2 * length, need + ROOM), new.shape[-1]))
            if used is not None:
                bigger[..., :length, :] = used
            buffer = bigger
        buffer.narrow(-2, length, need - length).copy_(new)
        return buffer, buffer.narrow(-2, 0, need)

    def update(self, layer: DynamicLayer, keys: Tensor, values: Tensor) -> None:
        filled = layer.is_initialized and layer.keys is not None and layer.keys.numel() > 0
        self.keys, layer.keys = self.extended(layer.keys if filled else None, keys, self.keys)
        self.values, layer.values = self.extended(layer.values if filled else None, values, self.values)
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True


class GrowingLayer(DynamicLayer):
    """Full attention."""

    keys: Tensor
    values: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__()
        self.buffers = _Buffers()

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self.buffers.update(self, key_states, value_states)
        return self.keys, self.values


class GrowingSlidingLayer(DynamicSlidingWindowLayer):
    """Sliding window: attention sees the window, the layer keeps all."""

    keys: Tensor
    values: Tensor

    def __init__(self, sliding_window: int) -> None:
        super().__init__(sliding_window=sliding_window)
        self.buffers = _Buffers()

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self.buffers.update(self, key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        visible = self.sliding_window - 1 + key_states.shape[-2]
        return self.keys[..., -visible:, :], self.values[..., -visible:, :]

    def crop(self, tokens_to_remove: int) -> None:
        if self.is_initialized and tokens_to_remove:
            keep = self.keys.shape[-2] - abs(tokens_to_remove)
            self.keys, self.values = self.keys[..., :keep, :], self.values[..., :keep, :]
            self.cumulative_length = keep


def make_growing(cache: object) -> None:
    """Replace the plain layers of a new cache; layers of any other kind stay as they are."""
    layers = getattr(cache, "layers", None)
    if not isinstance(cache, Cache) or layers is None or getattr(cache, "offloading", False):
        return
    for i, layer in enumerate(layers):
        if type(layer) is DynamicLayer and not layer.is_initialized:
            layers[i] = GrowingLayer()
        elif type(layer) is DynamicSlidingWindowLayer and not layer.is_initialized:
            layers[i] = GrowingSlidingLayer(layer.sliding_window)
    if getattr(cache, "layer_class_to_replicate", None) is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer


def can_crop(cache: object) -> bool:
    """Whether tokens can be cut off the end exactly, any number of times."""
    layers = getattr(cache, "layers", None) or []
    return len(layers) > 0 and all(isinstance(layer, GrowingLayer | GrowingSlidingLayer) for layer in layers)


def cached_bytes(cache: object) -> int:
    """Bytes of all keys, values and states in a cache for the tokens so far.

    Memory reserved for later tokens does not count, nor do counters.
    """
    parts = [cache, *(getattr(cache, "layers", None) or [])]
    return sum(_bytes(value) for part in parts for value in getattr(part, "__dict__", {}).values())


def cached_bytes_at(cache: Cache, length: int) -> int:
    """The same for a cache that can be cropped, at `length` tokens, however many it has now."""
    tensors: list[Tensor] = [x for layer in cache.layers if layer.is_initialized for x in (layer.keys, layer.values)]
    return length * sum(x.shape[0] * x.shape[1] * x.shape[-1] * x.element_size() for x in tensors)


def _bytes(value: object) -> int:
    """Of a tensor, or of the tensors in a list or a dict; a single whole number is a counter."""
    if isinstance(value, Tensor):
        counter = value.numel() == 1 and not value.is_floating_point()
        return 0 if counter else value.numel() * value.element_size()
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(_bytes(one) for one in inside if isinstance(one, Tensor))


def views(cache: Cache) -> list[tuple[object, dict[str, object]]]:
    """The current views of each layer into its buffers, for a cache that can be cropped. Cropped tokens stay in the buffers."""
    names = ("keys", "values", "cumulative_length", "is_initialized")
    return [(layer, {name: vars(layer)[name] for name in names if name in vars(layer)}) for layer in cache.layers]


def put_back(saved: list[tuple[object, dict[str, object]]]) -> None:
    """Restore the layers; valid where only the same tokens have been written since."""
    for layer, state in saved:
        vars(layer).update(state)


def crop(cache: Cache, length: int) -> None:
    """Keep the first `length` tokens."""
    with torch.inference_mode():
        for layer in cache.layers:
            tokens = layer.get_seq_length()
            if tokens > length:
                layer.crop(length - tokens)
