"""State that modules keep in attributes of their own instead of in the cache, such as RecurrentGemma's recurrent states.

A scan before and one after some forward passes finds the attributes and buffers that changed. Each sequence then has its own
values for them, which are set in the modules during its forward passes only, so that the model keeps its owner's values.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

COPIED = 1 << 20  # numbers: a scan does not copy larger tensors, so that writes into them can't be undone
SMALL = 1 << 12  # bytes of a state that is saved for each token; a larger one is saved every few tokens
RECORDING = "_output_capturing_hooks_installed"  # transformers' mark on a model whose modules have hooks that record outputs
_NO_STATE = frozenset((*vars(nn.Module()), RECORDING))  # names that every module may have
_ABSENT = object()


@dataclass(frozen=True, eq=False)
class Slot:
    """One attribute or buffer of a module; `original` is its value when the model was opened, `initial` a copy of that value."""

    module: nn.Module
    name: str
    is_buffer: bool
    initial: Any
    original: Any
    mark: object  # of `original`

    def _values(self) -> MutableMapping[str, Any]:
        return self.module._buffers if self.is_buffer else vars(self.module)

    def get(self) -> Any:
        return self._values().get(self.name, _ABSENT)

    def put(self, value: Any) -> None:
        if value is _ABSENT:
            self._values().pop(self.name, None)
        else:
            self._values()[self.name] = value


Values: TypeAlias = tuple[Any, ...]  # one entry a slot
_Key: TypeAlias = tuple[nn.Module, str, bool]  # a module, a name, and whether that is a buffer's


class Scan:
    """The values of all attributes and buffers of a model at one moment, and which of them have changed since."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._at_scan = {key: (value, _mark(value), copied(value)) for key, value in _candidates(model)}
        self._changed: dict[_Key, None] = {}

    def look(self) -> None:
        """Record what differs now, so that `changed` reports it even if it is restored later."""
        now = dict(_candidates(self._model))
        for key in self._at_scan.keys() | now.keys():
            value, mark, copy = self._at_scan.get(key, (_ABSENT, None, _ABSENT))
            if key not in now or now[key] is not value or _mark(value) != mark or not _same(value, copy):
                self._changed[key] = None

    def add(self, slots: Sequence[Slot]) -> None:
        """Remember these as changed."""
        self._changed.update(((slot.module, slot.name, slot.is_buffer), None) for slot in slots)

    def changed(self) -> tuple[Slot, ...]:
        """The slots that changed; `initial` is a copy of the value at the scan."""
        self.look()
        nothing = (_ABSENT, None, _ABSENT)
        entries = ((key, *self._at_scan.get(key, nothing)) for key in self._changed)
        return tuple(Slot(*key, initial=copy, original=value, mark=mark) for key, value, mark, copy in entries)


def _candidates(model: nn.Module) -> Iterator[tuple[_Key, Any]]:
    """All that may be state: tensors, numbers, and lists or dicts of tensors."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in _NO_STATE and _may_be_state(value):
                yield (module, name, False), value
        for name, value in module._buffers.items():
            yield (module, name, True), value


def _may_be_state(value: object) -> bool:
    if value is None or isinstance(value, Tensor | bool | int | float):
        return True
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(one, Tensor) for one in inside)


def _mark(value: object) -> object:
    """A value that differs after a write into a tensor, or after a tensor in a container was replaced."""
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, dict):
        return tuple((key, _mark(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return tuple(_mark(one) for one in value)
    return value if isinstance(value, bool | int | float) else None


def _same(value: object, copy: object) -> bool:
    """Whether a tensor without a version counter still equals its copy."""
    if isinstance(value, Tensor) and value.is_inference() and isinstance(copy, Tensor) and copy is not value:
        return value.shape == copy.shape and torch.equal(value, copy)
    return True


def copied(value: Any) -> Any:
    """A copy that writes into the original do not change; very large tensors are not copied."""
    if isinstance(value, Tensor):
        return value.detach().clone() if 0 < value.numel() <= COPIED and not value.is_meta else value
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(copied(one) for one in value)
    return value


def initial(slots: Sequence[Slot]) -> Values:
    """The values that a new sequence begins with."""
    return tuple(copied(slot.initial) for slot in slots)


def size(values: Values) -> int:
    """Bytes of all tensors."""
    return sum(_bytes(value) for value in values)


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(_bytes(one) for one in inside)


def take(slots: Sequence[Slot]) -> Values:
    """The current values."""
    return tuple(slot.get() for slot in slots)


def put(slots: Sequence[Slot], values: Values) -> None:
    for slot, value in zip(slots, values, strict=True):
        slot.put(value)


def put_back(slots: Sequence[Slot]) -> None:
    """Restore the values from when the model was opened: the same objects, or copies where a written value can't be restored in place."""
    for slot in slots:
        same = _mark(slot.original) == slot.mark and _same(slot.original, slot.initial)
        if (
            not same
            and isinstance(slot.original, Tensor)
            and isinstance(slot.initial, Tensor)
            and slot.original.shape == slot.initial.shape
        ):
            with torch.no_grad():
                slot.original.copy_(slot.initial)
            same = True
        slot.put(slot.original if same else copied(slot.initial))


@contextmanager
def fresh(slots: Sequence[Slot]) -> Iterator[None]:
    """Context manager: the modules have the state of a new sequence inside it, and their own again after it."""
    kept = take(slots)
    put(slots, initial(slots))
    try:
        yield
    finally:
        put(slots, kept)
