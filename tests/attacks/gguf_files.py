"""GGUF headers that lie about their counts, sizes and types."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attacks.base import Attack
from attacks.folders import ESCAPE

RUN = ("--model", "{folder}/m.gguf", "--plain", "--max-new-tokens", "2", "--prompt", "Hi")
UINT32, INT32, FLOAT32, STRING, ARRAY, UINT64 = 4, 5, 6, 8, 9, 10
SIZES: dict[str, int] = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 48,
    "attention.head_count": 4,
}


def text(value: str, length: int | None = None) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data) if length is None else length) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def number(key: str, value: int) -> bytes:
    return entry(key, UINT64 if value >= 2**32 else UINT32, struct.pack("<Q" if value >= 2**32 else "<I", value))


def file(
    entries: list[bytes],
    tensors: Sequence[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: bytes = b"",
) -> bytes:
    many = (len(tensors), len(entries)) if counts is None else counts
    head = magic + struct.pack("<IQQ", version, *many) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", count) + b"".join(struct.pack("<Q", one) for one in shape) + struct.pack("<IQ", kind, offset)


def sizes(**changed: int) -> list[bytes]:
    values = {**SIZES, **{key.replace("__", "."): value for key, value in changed.items()}}
    eps = entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5))
    return [entry("general.architecture", STRING, text("llama")), eps, *(number(f"llama.{key}", value) for key, value in values.items())]


TOKENS = struct.pack("<IQ", STRING, 3) + text("<unk>") + text("a") + text(ESCAPE)


def attacks() -> Iterator[Attack]:
    whole = sizes()
    vocabulary = entry("tokenizer.ggml.tokens", ARRAY, TOKENS)
    for name, content in (
        ("empty", b""),
        ("the magic alone", b"GGUF"),
        ("another magic", file(whole, magic=b"GGML")),
        ("version 0", file(whole, version=0)),
        ("version 99", file(whole, version=99)),
        ("the other byte order", file(whole, version=3 << 24)),
        ("zeros", b"\0" * 4096),
        ("text", b"version https://git-lfs.github.com/spec/v1\n"),
        ("2^60 tensors", file(whole, counts=(2**60, len(whole)))),
        ("2^60 entries", file(whole, counts=(0, 2**60))),
        ("a name of 2^60 bytes", file([text("general.architecture", 2**60)], counts=(0, 1))),
        ("an array of 2^60", file([entry("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2**60))])),
        ("arrays in arrays", file([entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000 + struct.pack("<IQ", UINT32, 0))])),
        ("an unknown type", file([entry("a", 77, b"\0" * 8)])),
        ("no architecture", file([])),
        ("an architecture that nobody knows", file([entry("general.architecture", STRING, text("nobody"))])),
        ("an architecture that is an escape", file([entry("general.architecture", STRING, text(ESCAPE))])),
        ("an architecture that is a number", file([number("general.architecture", 3)])),
        ("no tensors", file(whole)),
        ("no tokenizer", file(whole, [tensor("token_embd.weight", (32, 3))], data=b"\0" * 384)),
        ("tensors beyond the file", file([*whole, vocabulary], [tensor("token_embd.weight", (32, 3), offset=2**50)])),
        ("a tensor of 2^50 rows", file([*whole, vocabulary], [tensor("token_embd.weight", (32, 2**50))])),
        ("a tensor whose size overflows", file([*whole, vocabulary], [tensor("token_embd.weight", (2**40, 2**40))])),
        ("a tensor of 2^31 dimensions", file(whole, [tensor("a", (), dimensions=2**31)])),
        ("a tensor of an unknown type", file([*whole, vocabulary], [tensor("token_embd.weight", (32, 3), kind=999)], data=b"\0" * 384)),
        ("a tensor named twice", file([*whole, vocabulary], [tensor("a", (4,))] * 2, data=b"\0" * 64)),
        ("a tensor whose name is an escape", file([*whole, vocabulary], [tensor(ESCAPE, (4,))], data=b"\0" * 64)),
        ("entries named twice", file([*whole, *whole])),
    ):
        yield Attack(f"gguf: {name}", RUN, _written(content), may=("one line",))
    for key in ("block_count", "embedding_length", "feed_forward_length", "context_length", "attention__head_count"):
        for value in (0, 10**6, 2**62):
            entries = [*sizes(**{key: value}), vocabulary]
            yield Attack(
                f"gguf: {key.replace('__', '.')} = {value}",
                RUN,
                _written(file(entries, [tensor("token_embd.weight", (32, 3))], data=b"\0" * 384)),
                may=("one line",),
            )
    sound = file([*whole, vocabulary], [tensor("token_embd.weight", (32, 3))], data=b"\0" * 384)
    for size in range(8, len(sound), len(sound) // 8):
        yield Attack(f"gguf: cut after {size} of {len(sound)} bytes", RUN, _written(sound[:size]), may=("one line",))


def _written(content: bytes) -> Any:
    def make(folder: Path) -> None:
        (folder / "m.gguf").write_bytes(content)

    return make
