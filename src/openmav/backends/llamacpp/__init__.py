"""The backend llamacpp: GGUF files, run by llama.cpp itself through llama-cpp-python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openmav.backends.base import LoadOptions, Progress

if TYPE_CHECKING:
    from openmav.backends.llamacpp.backend import LlamaCppBackend


def load(name: str, options: LoadOptions, progress: Progress | None = None) -> LlamaCppBackend:
    """Load a GGUF file. Raises LoadError with one line that says why it can't be loaded and what to do."""
    from openmav.backends.llamacpp import backend

    return backend.load(name, options, progress)
