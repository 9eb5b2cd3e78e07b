"""Quantised checkpoints: which packages their loaders need, checked before anything is loaded, and how they are described.

Loading itself is transformers' and the packages' own. Nothing is quantised here: mav shows a model as it is in its checkpoint.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from openmav.errors import LoadError

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {  # method: (the extra that brings them, the modules that must import)
    "gguf": ("gguf", ("gguf", "accelerate")),
    "bitsandbytes": ("bitsandbytes", ("bitsandbytes", "accelerate")),
    "torchao": ("torchao", ("torchao", "accelerate")),
    "awq": ("gptq", ("gptqmodel", "accelerate")),
    "gptq": ("gptq", ("gptqmodel", "optimum", "accelerate")),
    "compressed-tensors": ("compressed-tensors", ("compressed_tensors", "accelerate")),
    "fp8": ("big", ("accelerate",)),
    "mxfp4": ("big", ("accelerate",)),
}


def method(config: Any) -> str | None:
    """The quantisation method of a checkpoint, for example "bitsandbytes"; None if it is not quantised."""
    own = getattr(config, "quantization_config", None)
    if own is None:
        return None
    named = own.get("quant_method") if isinstance(own, dict) else getattr(own, "quant_method", None)
    if named is None and isinstance(own, dict) and (own.get("load_in_4bit") or own.get("load_in_8bit")):
        named = "bitsandbytes"
    return str(getattr(named, "value", named or "unknown"))


def bits(config: Any) -> int | None:
    """Bits per weight, where the checkpoint states them."""
    own: Any = getattr(config, "quantization_config", None)
    settings = own if isinstance(own, dict) else getattr(own, "__dict__", {})
    if settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        return 4
    if settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        return 8
    return settings["bits"] if isinstance(settings.get("bits"), int) else None


def gradients_off(model: nn.Module) -> Callable[[], AbstractContextManager[object]]:
    """The context manager without gradients for this model: inference mode, or no_grad for quanto, whose tensors don't support it."""
    return torch.no_grad if method(model.config) == "quanto" else torch.inference_mode


def without_gradients(model: nn.Module) -> AbstractContextManager[object]:
    """A context manager without gradients."""
    return gradients_off(model)()


def need_packages(name: str, how: str) -> None:
    """Raises LoadError with the extra to install, where a package that loads weights of this kind is missing."""
    if how not in NEEDS:
        return
    extra, modules = NEEDS[how]
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        what = "is a GGUF file" if how == "gguf" else f"is quantised with {how}"
        packages = " and ".join(module.replace("_", "-").replace(".", "-") for module in missing)
        raise LoadError(f"{name} {what}, which needs {packages}: pip install 'openmav[{extra}]'")


def is_installed(module: str) -> bool:
    """Whether a module can be found; only its parent packages are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def damaged(name: str, text: str) -> bool:
    """Whether a loader's error for a GGUF file means that the file is truncated."""
    return name.lower().endswith(".gguf") and ("cannot reshape array" in text or "buffer" in text)


def notes(config: Any, gguf: str | None = None) -> tuple[str, ...]:
    """Notes about the weights for the user, a line each; `gguf` is the file that they come from."""
    how = method(config)
    if gguf is not None:
        return (f"weights of a GGUF file, {'unpacked to full floats' if how is None else 'kept in its blocks'}",)
    if how is None:
        return ()
    size = bits(config)
    return (f"weights are quantised: {how}{f', {size} bits' if size else ''}",)
