"""A model in memory, borrowed for one forward pass at a time: between passes it is exactly as its owner left it.

All that mav changes in a model to run it (training flags, attention, compiled calls) is set when a block begins and restored when
it ends, also after an error. So a session may be closed or garbage-collected without cleanup, several sessions can share a model
in any order, and a copy of the model that is made between two passes is a plain copy.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PretrainedConfig, PreTrainedModel

from openmav.backends.base import Directions
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.module_state import RECORDING
from openmav.backends.transformers.head.exact_head import ExactHead
from openmav.errors import UsageError

T = TypeVar("T")
_Setting: TypeAlias = tuple[dict[str, Any], str, Any]  # the attributes of an object, a name, and a value
_ABSENT = object()
CHANGED = "the model's modules were replaced after this session was opened; open a new one"

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()


def _lock_of(model: nn.Module) -> threading.RLock:
    with _guard:
        return _locks.setdefault(model, threading.RLock())


class Borrowed:
    """Runs one model in blocks. Two threads that borrow the same model take turns.

    `threads`: torch's threads inside a block; None: unchanged.
    """

    def __init__(self, model: PreTrainedModel, threads: int | None = None) -> None:
        self._lock = _lock_of(model)
        self._threads = threads
        self._modules = list(model.modules())
        self._models = [m for m in self._modules if isinstance(m, PreTrainedModel)]
        self._children = [(m._modules, tuple(m._modules.values())) for m in self._modules if m._modules]
        self._with_buffers = [m for m in self._modules if m._buffers]
        self._configs = list(_configs(self._modules))
        self._settings: list[_Setting] = []  # of the configurations, during mav's passes
        self._draws = False  # whether the model draws random numbers in its forward pass
        self._is_ready = 0  # blocks of `ready` around this one; the lock's holder reads and writes it

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The first block, which may switch the model's attention; later blocks run with that attention."""
        before = [(vars(config), dict(vars(config))) for config in self._configs]
        saved = [(values, dict(values)) for m in self._modules for values in (m.__dict__, m._modules)]
        with random_state_kept() as drew, self.on():
            try:
                yield
            except BaseException:  # a model that is refused may have swapped its own modules, as BigBird does on short texts
                with _put_back(saved):
                    raise
            finally:
                for values, old in before:
                    changed = [name for name in values.keys() | old.keys() if values.get(name, _ABSENT) is not old.get(name, _ABSENT)]
                    self._settings += [(values, name, values.get(name, _ABSENT)) for name in changed]
                    _put((values, name, old.get(name, _ABSENT)) for name in changed)
                self._draws = drew()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Context manager: several blocks follow, and what is alike for each of them is set once.

        Raises UsageError where modules were replaced after it was opened.
        """
        with self._lock:
            if any(tuple(now.values()) != then for now, then in self._children):
                raise UsageError(CHANGED)
            with self._with_threads(), attention.registered(), self._set(self._modules, self._settings):
                self._is_ready += 1
                try:
                    yield
                finally:
                    self._is_ready -= 1

    @contextmanager
    def on(self) -> Iterator[None]:
        """Context manager: inside it the model is in evaluation mode, uncompiled, and has the attention that mav runs it with.

        Raises UsageError where modules were replaced after it was opened.
        """
        with self._lock, nullcontext() if self._is_ready else self.ready():
            saved = [(values, dict(values)) for m in self._with_buffers for values in (m.__dict__, m._buffers)]
            with _put_back(saved), _recording_removed(self._models, self._modules):
                if not self._draws:
                    yield
                    return
                with random_state_kept():
                    yield

    @contextmanager
    def part(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        """The same for a few modules only, none of them attention."""
        with self._lock, self._set(modules, ()):
            yield

    def each(self, values: Iterable[T]) -> Iterator[T]:
        """The values of an iterator, each computed in a block of its own."""
        iterator = iter(values)
        while True:
            with self.on():
                value = next(iterator, _ABSENT)
            if value is _ABSENT:
                return
            yield value  # type: ignore[misc]

    @contextmanager
    def _set(self, modules: Iterable[nn.Module], settings: Iterable[_Setting]) -> Iterator[None]:
        undo: list[_Setting] = []
        try:
            for module in modules:
                values = module.__dict__
                if values["training"]:
                    undo.append((values, "training", True))
                    values["training"] = False
                if "forward" in values or "_compiled_call_impl" in values:
                    _without_compiler(values, undo)
            for values, name, value in settings:
                undo.append((values, name, values.get(name, _ABSENT)))
                _put([(values, name, value)])
            yield
        finally:
            _put(reversed(undo))

    @contextmanager
    def _with_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if self._threads in (None, before):
            yield
            return
        torch.set_num_threads(self._threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class BorrowedHead:
    """Satisfies backends.base.Head: an exact head that borrows the model for each call."""

    def __init__(self, head: ExactHead, borrowed: Borrowed) -> None:
        self._head = head
        self._borrowed = borrowed
        short = head.short
        self._end = None if short is None else [module for part in short for module in part.modules()]

    def logits(self, residuals: Tensor) -> Tensor:
        """See backends.base.Head."""
        with self._borrowed.on() if self._end is None else self._borrowed.part(self._end):
            return self._head.logits(residuals)

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions | None:
        """See backends.base.Head. Computed from copies and weights: no module of the model runs."""
        return self._head.directions(residual, token_ids, logits)

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, residual: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """See backends.base.Head. The model's modules run only for neurons that are not cached yet."""
        with nullcontext() if self._head.knows_neurons(layer, ids, count) else self._borrowed.on():
            return self._head.neuron_tokens(layer, ids, hidden, residual, count)


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile wraps any module's forward pass."""
    return any(_compiler_in(vars(module)) for module in model.modules())


def _compiler_in(values: dict[str, Any]) -> bool:
    return values.get("_compiled_call_impl") is not None or hasattr(values.get("forward"), "_torchdynamo_orig_callable")


def _without_compiler(values: dict[str, Any], undo: list[_Setting]) -> None:
    """Use the module's own forward instead of the compiled one, which runs no hooks and ignores changes."""
    if values.get("_compiled_call_impl") is not None:
        undo.append((values, "_compiled_call_impl", values.pop("_compiled_call_impl")))
    original = getattr(values.get("forward"), "_torchdynamo_orig_callable", None)
    if original is not None:
        undo.append((values, "forward", values["forward"]))
        values["forward"] = original


@contextmanager
def _recording_removed(models: Sequence[nn.Module], modules: Sequence[nn.Module]) -> Iterator[None]:
    """Context manager: removes the hooks that transformers registers inside it to record requested outputs."""
    without = [model for model in models if not vars(model).get(RECORDING)]
    first: int = RemovableHandle(OrderedDict()).id  # hooks are numbered one after another
    installed = True  # unless the block ends well without the mark, which comes after the hooks
    try:
        yield
        installed = any(RECORDING in vars(model) for model in without)
    finally:
        for model in without:
            vars(model).pop(RECORDING, None)
        for module in modules if installed else ():
            for key, hook in list(module._forward_hooks.items()):
                if key > first and str(getattr(hook, "__module__", "")).startswith("transformers."):
                    del module._forward_hooks[key]


@contextmanager
def _put_back(saved: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[None]:
    """Context manager: restores these attributes after it, for example rotary frequencies that are replaced in long texts."""
    try:
        yield
    finally:
        for values, old in saved:
            if len(values) != len(old) or any(values.get(name, _ABSENT) is not value for name, value in old.items()):
                _put([(values, name, old.get(name, _ABSENT)) for name in values.keys() | old.keys()])


def _put(settings: Iterable[_Setting]) -> None:
    for values, name, value in settings:
        if value is _ABSENT:
            values.pop(name, None)
        else:
            values[name] = value


def _configs(modules: Iterable[nn.Module]) -> Iterator[PretrainedConfig]:
    """Every configuration of the modules, nested ones included, each once."""
    seen: set[int] = set()
    waiting = [vars(module).get("config") for module in modules]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PretrainedConfig) and id(config) not in seen:
            seen.add(id(config))
            waiting += vars(config).values()
            yield config


@contextmanager
def random_state_kept() -> Iterator[Callable[[], bool]]:
    """Context manager: restores the random state of Python, NumPy and torch; yields a function that says whether any was used."""
    numpy: Any = sys.modules.get("numpy")
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = None if numpy is None else numpy.random.get_state()

    def drew() -> bool:
        if random.getstate() != python or not torch.equal(torch.get_rng_state(), torch_state):
            return True
        now = torch.cuda.get_rng_state_all() if cuda else []
        used = numpy is not None and str(numpy.random.get_state()) != str(numpy_state)
        return used or any(not torch.equal(a, b) for a, b in zip(now, cuda, strict=True))

    try:
        yield drew
    finally:
        random.setstate(python)
        torch.set_rng_state(torch_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
