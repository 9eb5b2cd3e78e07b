"""One sequence through a transformers model, token by token, prepared by transformers itself.

`generate` makes the cache and all that a model wants to be given, and hands it to us through `custom_generate`; the loop is
ours. The names with an underscore are transformers' own and not promised: they are used in this file only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES, GenerationMixin

from openmav.backends._hf import cache as caches
from openmav.backends._hf import placing

CHUNK = 512  # tokens of a prompt that are read at a time, where the cache is one of keys and values only
SNAPSHOT_EVERY = 64  # tokens, where a cache can't be cropped
SNAPSHOTS = 8  # that are kept: the prompt's and the newest
BY_POSITION = ("attention_mask", "position_ids", "token_type_ids")
SIMPLE = frozenset({"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"})


class Decoder:
    """The state of one sequence: the tokens fed, and what transformers keeps for them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.ids: list[int] = []
        self.kwargs: dict[str, Any] = {}
        self._snapshots: list[tuple[int, dict[str, Any]]] = []
        told = inspect.signature(model.prepare_inputs_for_generation).parameters
        self._by_cache_position = "cache_position" in told  # transformers before it took positions from the cache itself
        self._prepares_nothing = _prepares_nothing(model) and not self._by_cache_position
        self._simple = False
        self._device: torch.device | None = None  # of the tokens, once a prompt is prepared

    @property
    def cache(self) -> Any:
        return next((self.kwargs[name] for name in ALL_CACHE_NAMES if self.kwargs.get(name) is not None), None)

    @property
    def exact_crop(self) -> bool:
        """Whether taking tokens back is a crop of the cache; otherwise it is a snapshot and a replay."""
        return caches.can_crop(self.cache)

    def prepare(self, ids: Sequence[int]) -> None:
        """An empty cache and the arguments for a prompt; nothing is fed yet."""
        found: dict[str, Any] = {}

        def take(model: PreTrainedModel, input_ids: Tensor, **given: Any) -> Tensor:
            for name in ("logits_processor", "stopping_criteria", "generation_config"):
                given.pop(name, None)
            found.update(given)
            return input_ids

        self._device = placing.input_device(self.model)
        row = torch.tensor([list(ids)], device=self._device)
        mask = torch.ones_like(row)
        self.model.generate(row, attention_mask=mask, custom_generate=take, do_sample=False, max_new_tokens=1, use_cache=True)
        self.ids, self.kwargs, self._snapshots = [], found, []
        caches.make_growing(self.cache)

    def _forward(self, new: Sequence[int], first: bool, extra: dict[str, Any]) -> Any:
        """Feed tokens after those in the cache; returns transformers' output with the logits of the last one.

        A model that keeps no cache is given the whole text each time.
        """
        self.ids.extend(new)
        if self.cache is None and not first:
            new = self.ids
        row = torch.tensor([list(new)], device=self._device)
        kwargs = dict(self.kwargs)
        for name in BY_POSITION:
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name][..., : len(self.ids)]
        if self._by_cache_position:
            kwargs["cache_position"] = torch.arange(len(self.ids) - len(new), len(self.ids), device=row.device)
        inputs = self.model.prepare_inputs_for_generation(row, next_sequence_length=len(new), is_first_iteration=first, **kwargs)
        return self.model(**inputs, **extra, return_dict=True)

    def prefill(self, ids: Sequence[int], extra: dict[str, Any], between: Callable[[int], None]) -> Any:
        """Read a prompt in chunks; `between(tokens read)` is called after each, and `extra` goes to the last one only."""
        self.prepare(ids)
        output = None
        size = CHUNK if self.exact_crop else len(ids)  # a state-space model reads its prompt in one piece
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            last = start + size >= len(ids)
            output = self._forward(chunk, start == 0, extra if last else {})
            self._keep_cache(output)
            between(start + len(chunk))
        self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs)
        self._drop_unused_cache()
        self._simple = self._is_simple()
        self._snapshot()
        return output

    def _drop_unused_cache(self) -> None:
        """transformers prepares a cache for every model; one that is empty after the prompt belongs to a model that keeps none."""
        if not any(getattr(layer, "is_initialized", True) for layer in getattr(self.cache, "layers", [None])):
            self.kwargs = {name: value for name, value in self.kwargs.items() if name not in ALL_CACHE_NAMES}

    def _keep_cache(self, output: Any) -> None:
        for name in ALL_CACHE_NAMES:
            if getattr(output, name, None) is not None:
                self.kwargs[name] = getattr(output, name)

    def decode_one_token(self, token_id: int, extra: dict[str, Any]) -> Any:
        if self._simple:
            return self._next(token_id, extra)
        output = self._forward([token_id], False, extra)
        self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs)
        if len(self.ids) % SNAPSHOT_EVERY == 0:
            self._snapshot()
        return output

    def _is_simple(self) -> bool:
        """Whether a token needs nothing but itself, its position and the cache: then what transformers would prepare is known."""
        if not (self._prepares_nothing and self.exact_crop and SIMPLE.issuperset(self.kwargs)):
            return False
        positions = self.kwargs.get("position_ids")
        counted = positions is None or torch.equal(positions, torch.arange(len(self.ids) + 1, device=positions.device)[None])
        return counted and self.kwargs.get("attention_mask") is None

    def _next(self, token_id: int, extra: dict[str, Any]) -> Any:
        """Feed one token with the very arguments that transformers would prepare; on a small model, preparing costs as much as a layer."""
        row = torch.tensor([[token_id]], device=self._device)
        inputs = {name: value for name, value in self.kwargs.items() if value is not None}
        if "position_ids" in inputs:
            inputs["position_ids"] = row.new_full((1, 1), len(self.ids))
        self.ids.append(token_id)
        return self.model(input_ids=row, **inputs, **extra, return_dict=True)

    def _snapshot(self) -> None:
        if not self.exact_crop:
            self._snapshots.append((len(self.ids), copy.deepcopy(self.kwargs)))
            del self._snapshots[1:-SNAPSHOTS]

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens; they must reach to the end of the prompt at least."""
        if length >= len(self.ids):
            return
        if self.exact_crop:
            caches.crop(self.cache, length)
            for name in BY_POSITION:
                if self.kwargs.get(name) is not None:
                    self.kwargs[name] = self.kwargs[name][..., : length + 1]
            del self.ids[length:]
            return
        self._snapshots = [s for s in self._snapshots if s[0] <= length]
        if not self._snapshots:
            raise ValueError(f"no state is kept for {length} tokens")
        held, kwargs = self._snapshots[-1]
        replay = self.ids[held:length]
        self.ids, self.kwargs = self.ids[:held], copy.deepcopy(kwargs)
        for token_id in replay:
            output = self._forward([token_id], False, {})
            self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See backends._base.Backend."""
        kwargs, state = self.kwargs, (list(self.ids), list(self._snapshots), self._simple)
        held = caches.views(self.cache) if self.exact_crop else []
        self.kwargs = dict(kwargs) if self.exact_crop else copy.deepcopy(kwargs)
        try:
            yield
        finally:
            caches.put_back(held)
            self.kwargs, (self.ids, self._snapshots, self._simple) = kwargs, state


def _prepares_nothing(model: PreTrainedModel) -> bool:
    """Whether the model's class leaves to transformers what a token is given with, and is no encoder and decoder."""
    own = type(model)
    stock = ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
    return not model.config.is_encoder_decoder and all(getattr(own, name) is getattr(GenerationMixin, name) for name in stock)
