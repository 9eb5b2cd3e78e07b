"""One sequence through a transformers model, token by token, prepared by transformers itself.

`generate` prepares the cache and the model's arguments, and passes them to `custom_generate`; the loop is mav's own. The names with
an underscore are private to transformers and may change: they are used in this file only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES

from openmav.backends.transformers.capture import module_state
from openmav.backends.transformers.decoding import kv_cache as caches
from openmav.backends.transformers.decoding.generation_config import one_token
from openmav.backends.transformers.decoding.model_inputs import prepares_nothing, takes_mask
from openmav.backends.transformers.loading import placement

CHUNK = 512  # tokens of a prompt that are read at a time, where the cache is one of keys and values only
SNAPSHOT_EVERY = 64  # tokens, where a cache can't be cropped
SNAPSHOTS = 8  # kept snapshots: the prompt's and the newest
BY_POSITION = ("attention_mask", "position_ids", "token_type_ids")
SIMPLE = frozenset({"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"})


@dataclass(frozen=True)
class Traits:
    """How a model has to be run, as determined at load."""

    slots: tuple[module_state.Slot, ...] = ()  # state outside of the cache
    small_state: bool = True  # it can be saved for each token
    in_one_piece: bool = False  # a prompt that is read in chunks yields other logits
    reads_again: bool = False  # it has state that was not identified: rewinding reads all tokens again


_traits: WeakKeyDictionary[PreTrainedModel, Traits] = WeakKeyDictionary()


def traits_of(model: PreTrainedModel) -> Traits:
    return _traits.get(model, Traits())


def set_traits(model: PreTrainedModel, traits: Traits) -> None:
    """For all sequences that begin from now on."""
    _traits[model] = traits


class _Dropped(NamedTuple):
    """A cache that the model itself dropped to read all tokens again, and how many tokens were in it."""

    length: int
    kwargs: dict[str, Any]


class Decoder:
    """The state of one sequence: the tokens read, and the state of transformers and the modules for them."""

    def __init__(self, model: PreTrainedModel, chunk: int | None = None) -> None:
        self.model = model
        self.ids: list[int] = []
        self.kwargs: dict[str, Any] = {}
        self._chunk = CHUNK if chunk is None else chunk
        self._traits = traits_of(model)
        self._state: module_state.Values = ()  # of the traits' slots
        self._states: dict[int, module_state.Values] | None = None  # the same after each number of tokens, where it is small
        self._snapshots: list[tuple[int, dict[str, Any], module_state.Values]] = []
        self._dropped: list[_Dropped] = []
        self._prompt = 0  # tokens of the prompt
        takes = inspect.signature(model.prepare_inputs_for_generation).parameters
        self._by_cache_position = "cache_position" in takes  # transformers versions that do not read positions from the cache
        self._stock = prepares_nothing(model)
        self._prepares_nothing = self._stock and not self._by_cache_position
        self._simple = False
        self._device: torch.device | None = None  # of the tokens, once a prompt is prepared

    @property
    def cache(self) -> Any:
        return _cache_of(self.kwargs)

    @property
    def state_bytes(self) -> int:
        """Bytes of this sequence's state that modules keep outside of the cache."""
        return module_state.size(self._state)

    @property
    def exact_crop(self) -> bool:
        """Whether tokens are undone by cropping the cache; otherwise by a snapshot and a replay."""
        return not self._traits.reads_again and caches.can_crop(self.cache) and (not self._traits.slots or self._states is not None)

    @property
    def takes_rows(self) -> bool:
        """Whether a pass of the prompt that was read needs a token, its position and keys and values only, so that texts can share it."""
        plain = all(type(layer) is caches.GrowingLayer for layer in getattr(self.cache, "layers", None) or [None])
        return self._simple and plain and self.kwargs.get("position_ids") is not None

    def prepare(self, ids: Sequence[int]) -> None:
        """Prepare an empty cache and the arguments for a prompt; no forward pass runs yet."""
        self._device = placement.input_device(self.model)
        self.ids, self.kwargs, self._snapshots, self._dropped = [], self._prepared(ids), [], []
        self._state = module_state.initial(self._traits.slots)
        self._states = {} if self._traits.small_state else None

    def _prepared(self, ids: Sequence[int]) -> dict[str, Any]:
        """The arguments that `generate` would pass to the model with these tokens, including an empty cache."""
        prepared: dict[str, Any] = {}

        def take(model: PreTrainedModel, input_ids: Tensor, **given: Any) -> Tensor:
            for name in ("logits_processor", "stopping_criteria", "generation_config"):
                given.pop(name, None)
            prepared.update(given)
            return input_ids

        row = torch.tensor([list(ids)], device=self._device)
        given = {"attention_mask": torch.ones_like(row)} if takes_mask(self.model) else {}
        with module_state.fresh(self._traits.slots):  # discards state that preparing leaves in modules, such as positions of images
            self.model.generate(row, **given, custom_generate=take, generation_config=one_token())
        caches.make_growing(_cache_of(prepared))
        return prepared

    def _forward(self, new: Sequence[int], first: bool, extra: dict[str, Any]) -> Any:
        """Feed tokens after those in the cache; returns transformers' output with the logits of the last one.

        A model without a cache reads the whole text each time. One that prepares its inputs itself is passed the whole text, as in
        `generate`, and may drop its cache to read all of it again.
        """
        length = len(self.ids)
        self.ids.extend(new)
        no_cache = self.cache is None and not first
        row = torch.tensor([list(new) if self._stock and not no_cache else self.ids], device=self._device)
        count = len(self.ids) if no_cache else len(new)
        kwargs = dict(self.kwargs)
        for name in BY_POSITION:
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name][..., : len(self.ids)]
        if self._by_cache_position:
            kwargs["cache_position"] = torch.arange(len(self.ids) - count, len(self.ids), device=row.device)
        inputs = self.model.prepare_inputs_for_generation(row, next_sequence_length=count, is_first_iteration=first, **kwargs)
        if length and not no_cache and _cache_of(inputs) is None:
            self._begin_again(length, inputs)
        with self._own_state():
            return self.model(**inputs, **extra, return_dict=True)

    def _begin_again(self, length: int, inputs: dict[str, Any]) -> None:
        """The model dropped its cache of `length` tokens: replace it by an empty one, and keep the old one for rewinding."""
        name = next(name for name in ALL_CACHE_NAMES if self.kwargs.get(name) is not None)
        self._dropped.append(_Dropped(length, dict(self.kwargs)))
        inputs[name] = self.kwargs[name] = _cache_of(self._prepared(self.ids))

    def _own_state(self) -> AbstractContextManager[None]:
        """Context manager: the modules have this sequence's state inside it, and their own again after it."""
        return self._swapped() if self._traits.slots else nullcontext()

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        slots = self._traits.slots
        owner_state = module_state.take(slots)
        module_state.put(slots, self._state)
        try:
            yield
        finally:
            self._state = module_state.take(slots)
            module_state.put(slots, owner_state)
        if self._states is not None:
            self._states[len(self.ids)] = _copied(self._state)

    def prefill(self, ids: Sequence[int], extra: dict[str, Any], between: Callable[[int], None]) -> Any:
        """Read a prompt in chunks; `between(tokens read)` is called after each, and `extra` is passed to the last one only."""
        self.prepare(ids)
        self._prompt = len(ids)
        output = None
        whole = self._traits.in_one_piece or not self.exact_crop  # a prompt is not split for a model with other state
        size = len(ids) if whole else self._chunk
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            output = self._forward(chunk, start == 0, extra if start + size >= len(ids) else {})
            self._keep_cache(output)
            between(start + len(chunk))
        self._dropped.clear()  # a prompt is never rewound into
        self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs, is_encoder_decoder=False)
        self._drop_unused_cache()
        self._simple = self._is_simple()
        self._snapshot()
        return output

    def _drop_unused_cache(self) -> None:
        """transformers prepares a cache for every model; one that is empty after the prompt belongs to a model without a cache."""
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
        self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs, is_encoder_decoder=False)
        if len(self.ids) % SNAPSHOT_EVERY == 0:
            self._snapshot()
        return output

    def _is_simple(self) -> bool:
        """Whether a token's only arguments are its id, its position and the cache: then they are known without transformers."""
        if not (self._prepares_nothing and self.exact_crop and SIMPLE.issuperset(self.kwargs)):
            return False
        positions = self.kwargs.get("position_ids")
        counted = positions is None or torch.equal(positions, torch.arange(len(self.ids) + 1, device=positions.device)[None])
        return counted and self.kwargs.get("attention_mask") is None

    def _next(self, token_id: int, extra: dict[str, Any]) -> Any:
        """Read one token with the arguments that transformers would prepare; on a small model, preparing costs as much as a layer."""
        row = torch.tensor([[token_id]], device=self._device)
        inputs = {name: value for name, value in self.kwargs.items() if value is not None}
        if "position_ids" in inputs:
            inputs["position_ids"] = row.new_full((1, 1), len(self.ids))
        self.ids.append(token_id)
        with self._own_state():
            return self.model(input_ids=row, **inputs, **extra, return_dict=True)

    def _snapshot(self) -> None:
        if not (self.exact_crop or self._traits.reads_again):
            self._snapshots.append((len(self.ids), copy.deepcopy(self.kwargs), _copied(self._state)))
            del self._snapshots[1:-SNAPSHOTS]

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens; at least the prompt."""
        if length >= len(self.ids):
            return
        if self._traits.reads_again:
            self.read_again(self.ids[:length])
            return
        if self.exact_crop:
            self._crop(length)
            return
        self._snapshots = [s for s in self._snapshots if s[0] <= length]
        if not self._snapshots:
            raise ValueError(f"no state is kept for {length} tokens")
        count, kwargs, state = self._snapshots[-1]
        replay = self.ids[count:length]
        self.ids, self.kwargs, self._state = self.ids[:count], copy.deepcopy(kwargs), _copied(state)
        for token_id in replay:
            output = self._forward([token_id], False, {})
            self.kwargs = self.model._update_model_kwargs_for_generation(output, self.kwargs, is_encoder_decoder=False)

    def read_again(self, ids: Sequence[int]) -> None:
        """Read these tokens from the beginning, in the same way as the first time."""
        prompt = self._prompt
        self.prefill(ids[:prompt], {}, lambda _n: None)
        for token_id in ids[prompt:]:
            self.decode_one_token(token_id, {})

    def _crop(self, length: int) -> None:
        while self._dropped and length <= self._dropped[-1].length:
            self.kwargs = dict(self._dropped.pop().kwargs)
        caches.crop(self.cache, length)
        for name in BY_POSITION:
            if self.kwargs.get(name) is not None:
                self.kwargs[name] = self.kwargs[name][..., : length + 1]
        if self._states:
            self._state = _copied(self._states[length])
            self._states = {count: state for count, state in self._states.items() if count <= length}
        del self.ids[length:]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See backends.base.Backend."""
        attributes, exact = dict(vars(self)), self.exact_crop
        views = [view for cache in self._caches() for view in caches.views(cache)] if exact else []
        self.ids, self._snapshots, self._dropped = list(self.ids), list(self._snapshots), list(self._dropped)
        self.kwargs = dict(self.kwargs) if exact else copy.deepcopy(self.kwargs)
        self._state, self._states = _copied(self._state), None if self._states is None else dict(self._states)
        try:
            yield
        finally:
            caches.put_back(views)
            vars(self).update(attributes)

    def _caches(self) -> Iterator[Any]:
        """The cache, and those that the model dropped."""
        for kwargs in (self.kwargs, *(dropped.kwargs for dropped in self._dropped)):
            yield _cache_of(kwargs)


def _cache_of(kwargs: dict[str, Any]) -> Any:
    return next((kwargs[name] for name in ALL_CACHE_NAMES if kwargs.get(name) is not None), None)


def _copied(state: module_state.Values) -> module_state.Values:
    return tuple(module_state.copied(value) for value in state)
