"""Compares the sizes in a configuration with its weights: a model that would fill the memory is refused before it is built.

Only sizes of files and their headers are read. The limits are far beyond any real checkpoint (16 numbers per byte), so only broken or
malicious ones are refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmav.backends.loading.gguf_metadata import PER_BYTE, GgufHeader
from openmav.errors import LoadError

LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows
_SIZE = re.compile(r"size|dim|heads|experts|rank|channels|inner|state|d_model|n_embd|n_head|d_ff|width")
_LAYERS = re.compile(r"(num_)?(hidden|decoder|encoder)_layers|n_layers?|num_layers")
_NO_SIZE = re.compile(r"max_|window|batch|image|patch|chunk|block|group|_id$|_ids$|index|token|cache|seq|time|version")


@dataclass(frozen=True)
class Weights:
    """The files of a checkpoint: how many bytes they hold, and how many tensors at most."""

    size: int
    tensors: int


def check(name: str, place: str, header: GgufHeader | None, config: Any) -> None:
    """Raises LoadError where the configuration claims more than the weights in the folder `place` can hold; hub names are not checked."""
    folder = Path(place)
    if not folder.is_dir():
        return
    if header is not None:
        counted = [Weights(header.path.stat().st_size, len(header.tensors))]
    else:
        counted = [_safetensors(name, file) for file in sorted(folder.glob("*.safetensors"))]
    total = Weights(sum(one.size for one in counted), sum(one.tensors for one in counted))
    for key, value in _numbers(config.to_dict()):
        if _LAYERS.fullmatch(key) and value > total.tensors:
            raise LoadError(
                f"{name} claims {value:,} layers ({key}), and its weights hold {total.tensors:,} tensors; its configuration is wrong"
            )
        if _SIZE.search(key) and not _NO_SIZE.search(key) and value > PER_BYTE * total.size:
            raise LoadError(f"{name} claims {key} = {value:,}, and its weights are {total.size:,} bytes; its configuration is wrong")


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """All whole numbers of a configuration, those of the parts inside it too."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(key), value


def _safetensors(name: str, file: Path) -> Weights:
    """Of one file; raises LoadError for a header that is longer than the file."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 <= length <= min(size - 8, LONGEST_HEADER):
            raise LoadError(
                f"the weights of {name} are damaged or incomplete ({file.name} is no whole safetensors file); download them again"
            )
        header = opened.read(length)
    return Weights(size, header.count(b'"data_offsets"'))
