"""The header of a GGUF file: its keys and the table of its tensors, without the vocabulary and without the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # GGUF's value types
STRING, ARRAY, FLOAT32 = 8, 9, 0
VERSIONS = (2, 3)
END_KEYS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")  # the keys of tokens that llama.cpp takes for ends of a text
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)  # the name of one part of a file that was split
PER_BYTE = 16  # numbers that a byte of weights may stand for: far beyond any real file
LONGEST = 1_000_000  # bytes of a string or a list that need no look at the file's size
MOST_ENTRIES = 100_000  # keys, or tensors; the largest models have some 2,000
MOST_ITEMS = 4_000_000  # of a list; the largest vocabularies have 300,000 tokens and 600,000 merges
MOST_BYTES = 1 << 28  # of all keys; the largest vocabularies take some 30 MB
MOST_DIMENSIONS = 4  # of a tensor, as ggml has it


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies. `shape` is torch's order; `kind` is the type of ggml; `offset` is in bytes from the start of the file."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """`values` holds every key but the lists of texts, `repeating` the keys of such lists with a text twice; `tensors` is by name."""

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    repeating: frozenset[str] = frozenset()

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    @property
    def own(self) -> dict[str, Any]:
        """The keys of the architecture, without its name: {"rope.freq_base": 10000.0}."""
        start = self.architecture + "."
        return {key.removeprefix(start): value for key, value in self.values.items() if key.startswith(start)}

    @property
    def end_ids(self) -> list[int]:
        """All tokens that end a text: end of text, of turn and of message, and the marks after code that llama.cpp stops at too."""
        named = (self.values.get(f"tokenizer.ggml.{key}_token_id") for key in END_KEYS)
        return sorted({int(token) for token in named if isinstance(token, int)})

    def floats(self, name: str) -> list[float] | None:
        """The values of a small float32 tensor; None if the file has no such tensor. Raises ValueError for another type."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        if tensor.kind != FLOAT32:
            raise ValueError(f"{name} is not float32")
        count = int(np.prod(tensor.shape))
        return [float(value) for value in np.fromfile(self.path, dtype="<f4", count=count, offset=tensor.offset)]


class HeaderError(ValueError):
    """A file without a header that can be read; the message says why, and goes on after the file's name."""


def read(path: Path) -> GgufHeader | None:
    """The header of a file; None where `parse` raises HeaderError."""
    try:
        return parse(path)
    except HeaderError:
        return None


def parse(path: Path) -> GgufHeader:
    """The header of a file. Raises HeaderError for what is no GGUF file, or is damaged, cut off or larger than any real one."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise HeaderError("is no GGUF file")
        try:
            version, tensors, keys = struct.unpack("<IQQ", file.read(20))
            if version not in VERSIONS:
                raise HeaderError(f"has version {version} of the GGUF format, and mav knows {VERSIONS[0]} and {VERSIONS[1]}")
            if max(tensors, keys) > MOST_ENTRIES:
                raise HeaderError(f"claims {tensors:,} tensors and {keys:,} keys; no model has so many, the file is damaged")
            return _read(path, file, tensors, keys)
        except (struct.error, UnicodeDecodeError, KeyError, EOFError, OverflowError) as error:
            raise HeaderError("is damaged or cut off in its header; download it again") from error


def _read(path: Path, file: BinaryIO, tensors: int, keys: int) -> GgufHeader:
    values: dict[str, Any] = {}
    repeating: set[str] = set()
    for _ in range(keys):
        key = _string(file)
        value = _value(file, *_unpack(file, "I"))
        if not isinstance(value, _Texts):
            values[key] = value
        elif not value.distinct:
            repeating.add(key)
        if file.tell() > MOST_BYTES:
            raise HeaderError(f"has more than {MOST_BYTES >> 20} MB of keys; no model has so many, the file is damaged")
    table = [(_string(file), *_tensor(file)) for _ in range(tensors)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise HeaderError(f"says general.alignment = {str(alignment)[:20]}, which is no number of bytes")
    data = -(-file.tell() // alignment) * alignment
    return GgufHeader(path, values, {name: Tensor(shape, kind, data + offset) for name, shape, kind, offset in table}, frozenset(repeating))


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    form = "<" + form
    return struct.unpack(form, _take(file, struct.calcsize(form)))


def _take(file: BinaryIO, length: int) -> bytes:
    """The next bytes. Raises EOFError, and reserves no memory, where a length is beyond the file's."""
    if length > LONGEST:
        here = file.tell()
        if length > file.seek(0, 2) - here:
            raise EOFError("cut off")
        file.seek(here)
    return file.read(length)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    return _take(file, length).decode("utf-8")


@dataclass(frozen=True)
class _Texts:
    """Stands for a list of texts, which is not kept: whether each is there once."""

    distinct: bool


def _distinct(file: BinaryIO, count: int) -> bool:
    """Reads a list of texts; whether no two are the same up to a NUL, where C ends them. Empty ones do not count."""
    known: set[bytes] = set()
    length = once = 0
    for _ in range(count):
        (size,) = _unpack(file, "Q")
        length += size
        if size > LONGEST or length > MOST_BYTES:
            raise EOFError("a list of texts that is longer than any real one")
        text = file.read(size).partition(b"\0")[0]
        if text:
            known.add(text)
            once += 1
    return len(known) == once


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return _unpack(file, SCALARS[kind])[0]
    element, count = _unpack(file, "IQ")
    if count > MOST_ITEMS:
        raise HeaderError(f"holds a list of {count:,} items in its header; no model has one, the file is damaged")
    if element == STRING:
        return _Texts(_distinct(file, count))
    return list(_unpack(file, f"{count}{SCALARS[element]}"))


def _tensor(file: BinaryIO) -> tuple[tuple[int, ...], int, int]:
    (dimensions,) = _unpack(file, "I")
    if dimensions > MOST_DIMENSIONS:
        raise HeaderError(f"holds a tensor of {dimensions:,} dimensions; {MOST_DIMENSIONS} are the most")
    shape = _unpack(file, f"{dimensions}Q")
    kind, offset = _unpack(file, "IQ")
    return tuple(reversed(shape)), kind, offset
