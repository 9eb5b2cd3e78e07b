"""KV cache layers that grow in place: a buffer that doubles, instead of a copy of everything at each token.

They behave as transformers' own dynamic layers and hold every token, those outside of a sliding window too, so that any
number of tokens can be taken back, any number of times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

ROOM = 256  # tokens that a new buffer has beyond what is needed at once


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


def held_bytes(cache: object) -> int:
    """Bytes of all tensors that a cache holds for the tokens so far: keys and values, states; room kept for more does not count."""
    parts = [cache, *(getattr(cache, "layers", None) or [])]
    return sum(_bytes(value) for part in parts for value in getattr(part, "__dict__", {}).values())


def held_at(cache: Cache, length: int) -> int:
    """What a cache that can be cropped held when it had `length` tokens, however many it has now: as much for each token."""
    now: int = max(layer.get_seq_length() for layer in cache.layers)
    return held_bytes(cache) * length // max(1, now)


def _bytes(value: object) -> int:
    """Of a tensor, or of the tensors in a list or a dict."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(one.numel() * one.element_size() for one in inside if isinstance(one, Tensor))


def views(cache: Cache) -> list[tuple[object, dict[str, object]]]:
    """What each layer of a cache that can be cropped shows of its buffers now. A token that is cut off stays in them."""
    names = ("keys", "values", "cumulative_length", "is_initialized")
    return [(layer, {name: vars(layer)[name] for name in names if name in vars(layer)}) for layer in cache.layers]


def put_back(held: list[tuple[object, dict[str, object]]]) -> None:
    """The layers as they were; right where nothing but the tokens that were there has been written since."""
    for layer, state in held:
        vars(layer).update(state)


def crop(cache: Cache, length: int) -> None:
    """Keep the first `length` tokens."""
    with torch.inference_mode():
        for layer in cache.layers:
            held = layer.get_seq_length()
            if held > length:
                layer.crop(length - held)
