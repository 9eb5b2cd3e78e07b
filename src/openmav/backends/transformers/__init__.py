"""The backend for models of the transformers library. Importing it imports neither torch nor transformers before a name is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmav.backends.transformers.backend import TransformersBackend, load, wrap

__all__ = ["TransformersBackend", "load", "wrap"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.backend"), name)
