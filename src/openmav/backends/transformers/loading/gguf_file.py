"""A GGUF file on this machine: its header before loading, and what of it the model contains afterwards."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import cached_file

from openmav.backends.loading import gguf_metadata
from openmav.backends.loading.checkpoint import Checkpoint
from openmav.backends.loading.gguf_metadata import PART, GgufHeader
from openmav.backends.transformers.loading import gguf_config
from openmav.errors import LoadError

APPLIED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # tensors that the configuration holds
NOT_RUN = re.compile(r"(?:^|\.)(?:nextn|mtp)\.")  # layers that predict further tokens, which transformers does not run


def header(name: str, source: Checkpoint) -> GgufHeader | None:
    """The header of a checkpoint's GGUF file, downloaded if needed; None if it can't be read, which the loader then reports.

    Raises LoadError for one part of a file that was split.
    """
    if source.gguf is None:
        return None
    refuse_part(name, source.gguf)
    file = cached_file(source.place, source.gguf)
    head = None if file is None else gguf_metadata.read(Path(file))
    if head is not None and int(head.values.get("split.count", 1)) > 1:
        raise LoadError(f"{name} is one of {head.values['split.count']} parts of a GGUF file; {_join('FIRST_PART', 'WHOLE.gguf')}")
    return head


def refuse_part(name: str, file: str) -> None:
    """Raises LoadError with the command that joins the parts, where a file's name says that it is one of several."""
    part = PART.fullmatch(file)
    if part and int(part[3]) > 1:
        first, whole = f"{part[1]}-00001-of-{part[3]}.gguf", f"{part[1]}.gguf"
        raise LoadError(f"{name} is one of {int(part[3])} parts of a GGUF file; {_join(first, whole)}")


def _join(first: str, whole: str) -> str:
    return f"join them with `llama-gguf-split --merge {first} {whole}` (of llama.cpp), then load {Path(whole).name}"


def keys_read(architecture: str) -> frozenset[str]:
    """The keys of an architecture that transformers' loader puts into the configuration."""
    try:
        tables: Any = importlib.import_module("transformers.integrations.ggml").GGUF_CONFIG_MAPPING
    except (ImportError, AttributeError):
        return frozenset()
    names = (architecture, architecture.replace("-", "_"), re.sub(r"^(\D+\d?)moe$", r"\1_moe", architecture))
    table: dict[str, str | None] = next((tables[name] for name in names if name in tables), {})
    return frozenset(key for key, target in table.items() if target is not None)


def rebuilt(architecture: str) -> bool:
    """Whether the newer loader, which reads all keys and converts all tensors itself, takes this architecture."""
    try:
        known: Any = importlib.import_module("transformers.integrations.gguf").GGUF_CONFIG_ARCHS
    except (ImportError, AttributeError):
        return False
    return architecture in known


def configure(name: str, config: Any, head: GgufHeader) -> tuple[str, ...]:
    """Change a configuration to what the file says. Raises LoadError for what can't be applied."""
    if rebuilt(head.architecture):
        read = frozenset(key for key in head.own if not key.startswith("rope.scaling."))
    else:
        read = keys_read(head.architecture) - {"rope.dimension_count"}
    return gguf_config.apply(name, config, head, read)


def check_tensors(name: str, model: PreTrainedModel, head: GgufHeader) -> None:
    """Raises LoadError where the file holds tensors that the loader does not map: without them the numbers are wrong."""
    if rebuilt(head.architecture):
        return
    unused = [tensor for tensor in head.tensors if tensor not in APPLIED and not NOT_RUN.search(tensor)]
    unused = sorted(set(unused) - _claimed(model, head, unused))
    if unused:
        what = f"{', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}"
        raise LoadError(f"{name} holds {len(unused)} tensors that transformers has no place for in {type(model).__name__} ({what})")


def check_frequencies(name: str, model: PreTrainedModel, head: GgufHeader) -> None:
    """Raises LoadError where no rotary module of the model has the frequencies of the file's `rope_freqs`."""
    freqs = head.floats("rope_freqs.weight")
    if freqs is None:
        return
    theta, width = float(head.own.get("rope.freq_base", 10000.0)), 2 * len(freqs)
    expected = torch.tensor([theta ** (-2 * i / width) / factor for i, factor in enumerate(freqs)])
    buffers = (buffer.float().cpu() for key, buffer in model.named_buffers() if key.endswith("inv_freq"))
    if not any(b.shape == expected.shape and torch.allclose(b, expected, rtol=1e-4, atol=1e-12) for b in buffers):
        kind = type(model).__name__
        raise LoadError(f"{name} scales its rotary positions by factors (rope_freqs) that transformers does not apply to {kind}")


def _claimed(model: PreTrainedModel, head: GgufHeader, tensors: Iterable[str]) -> set[str]:
    """The tensors that the loader maps to a weight, by its own table of names."""
    try:
        loader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
        processor = loader.TENSOR_PROCESSORS.get(head.architecture, loader.TensorProcessor)(config=model.config.to_dict())
        places = loader.get_gguf_hf_weights_map(model, processor)
    except (ImportError, AttributeError, TypeError, NotImplementedError):
        return set(tensors)
    bare = {place.removesuffix(".weight").removesuffix(".bias") for place in places}
    return {t for t in tensors if t in places or t.removesuffix(".weight") in places or (t == "output.weight" and "output" in bare)}
