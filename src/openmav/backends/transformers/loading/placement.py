"""The device and float type of a model: one device, or a map over several with what does not fit on the CPU or on disk."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from openmav.errors import LoadError


def pick_device(wanted: str) -> torch.device:
    """The torch device; auto is the first of CUDA, MPS, CPU that is available.

    Raises LoadError for a device that is not available.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise LoadError(f"unknown device '{wanted}'; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and not cuda:
        raise LoadError("this machine, or this build of torch, has no CUDA; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LoadError(f"there is no {wanted}; this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0")
    if device.type == "mps" and not mps:
        raise LoadError("this machine, or this build of torch, has no MPS; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise LoadError(f"mav does not run on '{wanted}'; use auto, cpu, cuda, cuda:N or mps")
    return device


def pick_dtype(wanted: str, device: torch.device, config: Any) -> torch.dtype:
    """auto is float32 on a CPU, where it is exact and often fastest, and the checkpoint's own type elsewhere and for quantised weights."""
    if wanted != "auto":
        dtype = getattr(torch, wanted, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise LoadError(f"unknown dtype '{wanted}'; use auto, float32, bfloat16 or float16")
        return dtype
    own = getattr(config, "dtype", None)
    plain_on_cpu = device.type == "cpu" and getattr(config, "quantization_config", None) is None
    return torch.float32 if plain_on_cpu or not isinstance(own, torch.dtype) else own


def device_map(wanted: str, device: torch.device, quantised: bool, offload_folder: str) -> dict[str, Any]:
    """Arguments that make `from_pretrained` place the weights itself; empty: load on the CPU, then move the model as a whole.

    With accelerate, auto fills the first GPU, then the next ones, then the CPU's memory, then the disk. Quantised weights are
    made on their device, and never moved afterwards.
    """
    if importlib.util.find_spec("accelerate") is None:
        return {}
    if wanted == "auto":
        return {"device_map": "sequential", "offload_folder": offload_folder}
    return {"device_map": {"": device}} if quantised else {}


def need_weights(model: nn.Module) -> None:
    """Raises LoadError for a model of shapes without weights; those that accelerate keeps on disk are fetched by its hooks."""
    hooked = any(hasattr(module, "_hf_hook") for module in model.modules())
    empty = next((name for name, weight in model.named_parameters() if weight.is_meta), None)
    if empty is not None and not hooked:
        raise LoadError(f"the model has shapes but no weights: '{empty}' is on torch's meta device; load them with from_pretrained first")


def input_device(model: nn.Module) -> torch.device:
    """The device of token ids: that of the embedding, or the one that accelerate moves it to for each use."""
    embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    weight: Any = embedding.weight
    if weight.is_meta:
        return torch.device(getattr(getattr(embedding, "_hf_hook", None), "execution_device", None) or "cpu")
    device: torch.device = weight.device
    return device


def describe(model: nn.Module) -> str:
    """The devices that hold weights, such as "cuda:0 + cpu + disk"."""
    places = getattr(model, "hf_device_map", None)
    if places:
        named = [f"cuda:{place}" if isinstance(place, int) else str(place) for place in places.values()]
    else:
        named = [str(parameter.device) for parameter in model.parameters()] or ["cpu"]
    return " + ".join(dict.fromkeys(named))
