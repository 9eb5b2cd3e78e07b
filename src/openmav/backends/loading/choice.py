"""Which backend runs a model for which none was named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from openmav.backends.base import LoadOptions
from openmav.backends.loading.checkpoint import SPLIT
from openmav.errors import LoadError
from openmav.settings import AUTO, DEMO

TRANSFORMERS, LLAMACPP = "transformers", "llamacpp"


def backend_for(backend: str, model: str) -> str:
    """The backend of that name; for "auto" llama.cpp for a GGUF file and the bundled model where it is installed, else transformers."""
    if backend != AUTO:
        return backend
    packages = ("llama_cpp", "gguf") if model == DEMO else ("llama_cpp",)  # the bundled model's file is still to be written
    native = (model == DEMO or names_gguf(model)) and all(importlib.util.find_spec(name) is not None for name in packages)
    return LLAMACPP if native else TRANSFORMERS


def backend_for_many(backend: str, model: str) -> str:
    """The same for many texts: transformers runs several of the bundled model in one pass, llama.cpp one after another."""
    return TRANSFORMERS if backend == AUTO and model == DEMO else backend


def names_gguf(model: str) -> bool:
    """Whether a model's name means a GGUF file, or a folder with one and nothing that transformers alone loads."""
    if model.lower().endswith(".gguf"):
        return True
    try:
        folder = Path(model).expanduser()
        files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except (OSError, ValueError, RuntimeError):
        return False
    ggufs = {SPLIT.sub("", file) for file in files if file.lower().endswith(".gguf")}
    return len(ggufs) == 1 and "config.json" not in files


def refuse_placement(backend: str, options: LoadOptions) -> None:
    """Raises LoadError where layers for an accelerator or workers are given to a backend that places a model in another way."""
    if options.rpc:
        raise LoadError(f"--rpc is for --backend llamacpp, and {backend} runs this model; leave it out, or name a GGUF file")
    if options.gpu_layers is not None:
        raise LoadError(f"--gpu-layers is for --backend llamacpp, and {backend} runs this model; say --device instead, or leave it out")
