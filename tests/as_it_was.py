"""Whether a model in memory, and the process around it, are as they were: what mav must not change in anybody's program."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import logging as transformers_logging

from openmav.backends.transformers import TransformersBackend

State = dict[str, Any]
CALLS = ("__init__", "prefill", "decode_one_token", "rewind", "explain", "why_not", "values_of", "width_of", "intervened", "ready", "close")
SMALL = 1 << 16  # numbers
LOGGERS = ("", "transformers", "huggingface_hub", "torch", "py.warnings")


def of_model(model: nn.Module) -> State:
    """All that can be told of a model without running it; tensors by identity, place and content."""
    state: State = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    state[f"{path}.{key}"] = _tensor(tensor)
            elif isinstance(value, dict) and name.startswith("_"):  # modules, and all kinds of hooks
                state[f"{path}.{name}"] = [(key, id(one)) for key, one in value.items()]
            elif isinstance(value, PretrainedConfig):
                state[f"{path}.{name}"] = _config(value)
            elif name == "generation_config":
                state[f"{path}.{name}"] = (id(value), repr(vars(value)))
            else:
                state[f"{path}.{name}"] = value if isinstance(value, bool | int | float | str) else id(value)
    return state


def _tensor(tensor: Tensor | None) -> object:
    if tensor is None:
        return None
    grad = tensor.grad if tensor.is_leaf else None
    kind = tensor.is_inference(), tensor.dtype, tensor.device, tensor.requires_grad
    return id(tensor), _content(tensor), *kind, grad is not None and _tensor(grad)


def _content(tensor: Tensor) -> object:
    """The bits of a small tensor; of others how often they were written to."""
    if type(tensor) in (Tensor, nn.Parameter) and 0 < tensor.numel() <= SMALL and not tensor.is_meta:
        return hash(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return None if tensor.is_inference() else tensor._version


def _config(config: PretrainedConfig) -> object:
    return id(config), {name: _config(v) if isinstance(v, PretrainedConfig) else repr(v) for name, v in vars(config).items()}


def of_process() -> State:
    """What a library may have set in the process; bytes where a text of the same would cost more than the call that is checked."""
    _, numpys, *rest = np.random.get_state()
    state: State = {
        "attention functions": dict(AttentionInterface._global_mapping),
        "attention masks": dict(AttentionMaskInterface._global_mapping),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "threads": torch.get_num_threads(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
        "progress bars": (transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()),
        "random state": (random.getstate(), numpys.tobytes(), rest, torch.get_rng_state().numpy().tobytes()),
    }
    for name in LOGGERS:
        logger = logging.getLogger(name or None)
        state[f"logger {name or 'root'}"] = (logger.level, logger.disabled, logger.propagate, len(logger.handlers))
    return state


def differences(before: State, after: State) -> list[str]:
    """The names of all that is not the same."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name, ...) != after.get(name, ...))


class Checker:
    """Compares around each call of a backend, and after a test: with each model that one was made for."""

    def __init__(self) -> None:
        self.models: list[tuple[nn.Module, State]] = []
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._calls = 0  # that run now, in all threads
        self._before: State = {}

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """The process is the same before and after a call from outside, or several at once."""
        with self._lock:
            self._calls += 1
            if self._calls == 1:
                self._before = of_process()
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self.faults += [f"{what}: {name}" for name in differences(self._before, of_process())]

    @contextmanager
    def block(self, what: str, manager: AbstractContextManager[Any]) -> Iterator[None]:
        """A block of several calls, such as a burst: in it the model is prepared, so another thread's call must not end the check."""
        with self.call(what), manager:
            yield

    def see(self, model: nn.Module) -> None:
        """Remember the model as it is before the first call of this test."""
        with self._lock:
            if all(model is not known for known, _ in self.models):
                self.models.append((model, of_model(model)))

    def found(self) -> list[str]:
        """All that is not as it was."""
        now = ((model, before, of_model(model)) for model, before in self.models)
        return self.faults + [f"{type(model).__name__}: {name}" for model, before, after in now for name in differences(before, after)]


@contextmanager
def checking(checker: Checker) -> Iterator[None]:
    """Within this block, every backend is checked."""
    originals = {name: getattr(TransformersBackend, name) for name in CALLS}

    def checked(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(self: TransformersBackend, *args: Any, **kwargs: Any) -> Any:
            model = vars(self).get("model", args[0] if args else kwargs.get("model"))
            if isinstance(model, nn.Module):
                checker.see(model)
            with checker.call(name):
                result = original(self, *args, **kwargs)
            return checker.block(name, result) if isinstance(result, AbstractContextManager) else result

        return call

    try:
        for name, original in originals.items():
            setattr(TransformersBackend, name, checked(name, original))
        yield
    finally:
        for name, original in originals.items():
            setattr(TransformersBackend, name, original)
