"""config.json, generation_config.json, weights and folders as they should not be."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks.base import Attack
from attacks.models import CONFIG, RUN, sound, with_file, with_json

ESCAPE = "\x1b]52;c;aGk=\x07\x9b31m\u202eevil\n\r\x1b[2J"
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**6,
    10**12,
    2**63,
    10**400,
    1.5,
    -0.0,
    1e308,
    "",
    "12",
    ESCAPE,
    [],
    [1],
    [[[]]],
    {},
    {"a": {"b": 1}},
)
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
OTHERS = ("max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters", "attention_bias", "initializer_range", "dtype")
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
GENERATION = (
    "eos_token_id",
    "temperature",
    "top_k",
    "top_p",
    "num_beams",
    "bad_words_ids",
    "stop_strings",
    "suppress_tokens",
    "max_length",
)


def _short(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, TypeError):
        text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}...({len(text)})"


def configs() -> Iterator[Attack]:
    """One value of config.json is another."""
    for key in (*SIZES, *OTHERS, *IDS):
        for value in ODD if key in ("num_hidden_layers", "vocab_size", "eos_token_id") else (None, -1, 10**9, "12", ESCAPE, [1]):
            yield Attack(f"config {key} = {_short(value)}", RUN, with_json("config.json", lambda c, k=key, v=value: c.update({k: v})))
    for value in ("gpt2", "no-such-type", ESCAPE, "", 3, None, ["llama"], "bert", "t5", "clip"):
        yield Attack(f"config model_type = {_short(value)}", RUN, with_json("config.json", lambda c, v=value: c.update(model_type=v)))
    for value in (
        {"quant_method": ESCAPE},
        {"quant_method": "gptq"},
        {"quant_method": None},
        {},
        [],
        "x",
        {"quant_method": ["a"]},
        {"quant_method": "awq", "bits": "x"},
    ):
        yield Attack(
            f"quantization_config = {_short(value)}", RUN, with_json("config.json", lambda c, v=value: c.update(quantization_config=v))
        )
    for value in (ESCAPE, "flash_attention_2", "eager", 3, {"a": 1}):
        yield Attack(
            f"attn_implementation = {_short(value)}",
            RUN,
            with_json("config.json", lambda c, v=value: c.update(_attn_implementation=v, attn_implementation=v)),
        )
    yield Attack(
        "config auto_map to code",
        RUN,
        with_json("config.json", lambda c: c.update(auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})),
    )
    for name, text in (
        ("empty", ""),
        ("no JSON", "{"),
        ("a list", "[]"),
        ("a number", "3"),
        ("null", "null"),
        ("nested deeply", "[" * 100_000),
        ("UTF-16", '{"a": 1}'.encode("utf-16")),
        ("not UTF-8", b'{"model_type": "\xff"}'),
        ("NaN", '{"model_type": "llama", "vocab_size": NaN}'),
        ("a byte order mark", "\ufeff" + json.dumps(CONFIG)),
        ("10 MB of spaces", " " * 10_000_000 + json.dumps(CONFIG)),
        ("keys twice", '{"model_type": "llama", "model_type": "gpt2"}'),
        ("an escape for text", ESCAPE),
        ("zeros", b"\0" * 1000),
    ):
        yield Attack(f"config.json is {name}", RUN, with_file("config.json", text))
    yield Attack("config.json is not there", RUN, with_file("config.json", None))


def generation_configs() -> Iterator[Attack]:
    for key in GENERATION:
        for value in (-1, 1.5, "x", ESCAPE, [[]], {"a": 1}, [10**9]):
            yield Attack(
                f"generation {key} = {_short(value)}", RUN, with_json("generation_config.json", lambda c, k=key, v=value: c.update({k: v}))
            )
    for name, text in (("no JSON", "{"), ("a list", "[1]"), ("empty", ""), ("nested deeply", "[" * 100_000), ("not UTF-8", b"\xff")):
        yield Attack(f"generation_config.json is {name}", RUN, with_file("generation_config.json", text))


def _safetensors(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def weights() -> Iterator[Attack]:
    """model.safetensors, whole and in pieces."""
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for name, content in (
        ("empty", b""),
        ("7 bytes", b"\x01" * 7),
        ("a header without end", struct.pack("<Q", 2**60)),
        ("header of 2 GB claimed", _safetensors({}, size=2**31)),
        ("no JSON", _safetensors(b"{")),
        ("no tensors", _safetensors({})),
        ("offsets beyond the file", _safetensors({"a": {**entry, "data_offsets": [0, 2**40]}})),
        ("a shape that overflows", _safetensors({"a": {**entry, "shape": [2**40, 2**40]}}, b"\0" * 16)),
        ("a strange type", _safetensors({"a": {**entry, "dtype": ESCAPE}}, b"\0" * 16)),
        ("another model's names", _safetensors({ESCAPE: entry}, b"\0" * 16)),
        ("a pickle", b"\x80\x04\x95" + b"\0" * 100),
        ("text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
        ("nested deeply", _safetensors(b"[" * 100_000)),
        ("negative offsets", _safetensors({"a": {**entry, "data_offsets": [-16, 0]}}, b"\0" * 16)),
    ):
        yield Attack(f"model.safetensors is {name}", RUN, with_file("model.safetensors", content))

    def cut(folder: Path) -> None:
        file = sound(folder) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])

    def only_pickles(folder: Path) -> None:
        (sound(folder) / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")

    def no_file(folder: Path) -> None:
        (sound(folder) / "model.safetensors").unlink()
        (folder / "model" / "model.safetensors").mkdir()

    yield Attack("model.safetensors is cut off", RUN, cut, may=("one line",))
    yield Attack("weights are pickles only", RUN, only_pickles, may=("one line",))
    yield Attack("model.safetensors is a folder", RUN, no_file, may=("one line",))
    yield Attack("model.safetensors is not there", RUN, with_file("model.safetensors", None), may=("one line",))
    for name, index in (
        ("a file that is not there", {"weight_map": {"a": "gone.safetensors"}}),
        ("a path out of the folder", {"weight_map": {"a": "../../../etc/passwd"}}),
        ("a list", []),
        ("an escape", {"weight_map": {"a": ESCAPE}}),
        ("no map", {}),
    ):
        yield Attack(f"an index that names {name}", RUN, _indexed(index))


def _indexed(index: object) -> Any:
    def make(folder: Path) -> None:
        model = sound(folder)
        (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return make


def _piped(file: str) -> Any:
    def make(folder: Path) -> None:
        path = sound(folder) / file
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def paths() -> Iterator[Attack]:
    """Names that are no model."""
    for name in (
        "/dev/null",
        "/dev/zero",
        "/",
        ".",
        "..",
        "~",
        "",
        " ",
        "a" * 5000,
        "a/b/c",
        "https://x.y/z",
        "..\\..\\x",
        "model.gguf",
        "\udcff",
        "x\x00y",
        ESCAPE,
        f"./{ESCAPE}",
        f"owner/{ESCAPE}.gguf",
        "gpt2",
        "owner/name",
    ):
        yield Attack(f"--model {_short(name)}", ("--model", name, "--plain", "--max-new-tokens", "2"), may=("one line",))

    def named(folder: Path) -> None:
        sound(folder).rename(folder / "\x1b]0;evil\x07\u202e")

    yield Attack(
        "a folder whose name is an escape",
        ("--model", "{folder}/\x1b]0;evil\x07\u202e", "--plain", "--max-new-tokens", "2"),
        named,
        may=("right",),
    )
    if hasattr(os, "mkfifo"):
        for file in ("config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja", "model.safetensors", "other"):
            yield Attack(f"{file} is a pipe", RUN, _piped(file), may=("one line",))
    yield Attack("doctor, a folder whose name is an escape", ("doctor", "--model", "{folder}/\x1b]0;evil\x07\u202e"), named)


def attacks() -> Iterator[Attack]:
    yield from configs()
    yield from generation_configs()
    yield from weights()
    yield from paths()
