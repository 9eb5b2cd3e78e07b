"""Tiny random models of llama.cpp's architectures, as GGUF files: which tensors each has, and their shapes, llama.cpp itself says."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.gguf_files import add, add_tokenizer
from llamacpp_settings import parted, settings, vocabulary
from openmav.backends.llamacpp.native import Native, Tensor

SPREAD = 0.1  # of the weights


class NotBuiltError(Exception):
    """llama.cpp does not make this model; the text says why."""


class _FileParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def write(name: str, path: Path, native: Native) -> None:
    """Raises NotBuiltError."""
    architecture, experts = parted(name)
    keys = settings(architecture, experts)
    bare = path.with_suffix(".keys.gguf")
    _write(bare, architecture, keys, {})
    _write(path, architecture, keys, _tensors(native, bare))


def _write(path: Path, architecture: str, keys: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        add(writer, f"{architecture}.{key}", value)
    for key, number in {"alpha_n": 1.0, "alpha_p": 1.0, "beta": 1.0, "eps": 1e-7}.items():
        writer.add_float32(f"xielu.{key}", number)
    add_tokenizer(writer, vocabulary(architecture))
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(native: Native, keys: Path) -> dict[str, NDArray[np.float32]]:
    """Random weights of all tensors that llama.cpp makes for these keys."""
    from llama_cpp import _ggml

    llama = native.llama
    result: dict[str, NDArray[np.float32]] = {}
    read = _ggml.ctypes_ext.load_shared_library("ggml-base", _ggml.libggml_base_path).gguf_init_from_file
    read.restype, read.argtypes = ctypes.c_void_p, (ctypes.c_char_p, _FileParams)
    metadata = read(str(keys).encode(), _FileParams(True, None))

    def fill(address: int, _data: object) -> None:
        tensor = Tensor.from_address(address)
        name = tensor.name.decode()
        value = result[name] = _random(name, tuple(size for size in reversed(tensor.ne[: _dimensions(tensor)])))
        native.ggml.ggml_backend_tensor_set(address, value.ctypes.data, 0, value.nbytes)

    callback = llama.llama_model_set_tensor_data_t(fill)
    native.said.clear()
    model = llama.llama_model_init_from_user(metadata, callback, None, llama.llama_model_default_params())
    if not model:
        raise NotBuiltError(next((text for text in native.said if "error loading" in text), native.why()))
    llama.llama_model_free(model)
    return result


def _dimensions(tensor: Tensor) -> int:
    return max((at + 1 for at, size in enumerate(tensor.ne) if size > 1), default=1)


def _random(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Always the same for a name; factors of norms are around 1, and the decay of a state is negative."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(0.0, SPREAD, shape).astype(np.float32)
    if "ssm_a" in name:
        return -np.abs(values)
    return values + 1 if "norm" in name and name.endswith(".weight") else values
