"""GGUF files before llama.cpp opens them: the bundled model's own, the parts of one, and those that claim what can't be."""

from __future__ import annotations

import math
import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks import gguf_files as raw
from openmav.backends.base import LoadOptions
from openmav.backends.llamacpp import demo_file, file
from openmav.backends.loading import gguf_metadata
from openmav.errors import LoadError

gguf = pytest.importorskip("gguf")
EMBEDDING = raw.tensor("token_embd.weight", (32, 3))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_args, **_options: str(tmp_path / "cache"))
    return tmp_path / "cache"


def epsilon(value: float) -> bytes:
    return raw.entry("llama.attention.layer_norm_epsilon", raw.FLOAT32, struct.pack("<f", value))


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(LoadError) as raised:
        file.find(str(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_bundled_model_is_written_once_whole_and_replaces_older_ones(cache: Path) -> None:
    cache.mkdir()
    (cache / "demo-0123456789abcdef.gguf").write_bytes(b"of an older version")
    path = file.find("demo").path
    assert sorted(cache.iterdir()) == [path]
    written = path.stat().st_mtime_ns
    assert file.find("demo").path == path
    assert path.stat().st_mtime_ns == written


def test_the_bundled_model_has_the_numbers_and_the_tokens_of_its_safetensors(cache: Path) -> None:
    pytest.importorskip("accelerate")
    from openmav.backends.transformers import load

    own, other = load("demo", LoadOptions(dtype="float32")), load(str(demo_file.path()), LoadOptions(dtype="float32"))
    texts = ("It is a truth", " naïve café 中文 🦕\n\n\t  of<|endoftext|>the  end", "")
    assert [own.encode(text) for text in texts] == [other.encode(text) for text in texts]
    assert other.end_ids == own.end_ids == {0}
    ids = own.encode(texts[0] * 20)
    assert torch.equal(own.prefill(ids, frozenset()).logits, other.prefill(ids, frozenset()).logits)


def test_the_bundled_model_computes_the_same_on_both_backends(cache: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
    from openmav.backends import llamacpp, transformers

    own, other = (module.load("demo", LoadOptions(dtype="float32", threads=1)) for module in (llamacpp, transformers))
    want = frozenset({"residual.after", "attention.out", "mlp.out", "attention.probs"})
    ids = own.encode("It is a truth universally acknowledged, that a single man " * 3)
    frames = [(own.prefill(ids, want), other.prefill(ids, want))]
    frames += [(own.decode_one_token(i, want), other.decode_one_token(i, want)) for i in ids[:4]]
    for a, b in frames:
        assert float((a.logits - b.logits).abs().max()) < 1e-4 * float(b.logits.abs().max())
        for site in want:
            for x, y in zip(a.sites[site], b.sites[site], strict=True):
                assert float((x - y).abs().max()) < (1e-5 if site == "attention.probs" else 1e-4 * float(y.abs().max()))
    own.close()


def test_a_cache_folder_that_can_not_be_written_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_args, **_options: str(tmp_path / "taken"))
    with pytest.raises(LoadError, match=r"can't be written to .*--backend transformers"):
        demo_file.path()


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(raw.file(raw.sizes(block_count=1), [EMBEDDING], data=b"\0" * 384))
    found = file.find(str(tmp_path / "m.gguf"))
    assert (found.header.architecture, [*found.tensors]) == ("llama", ["token_embd.weight"])


def test_what_a_header_may_not_claim(tmp_path: Path) -> None:
    sound, data = raw.sizes(block_count=1), b"\0" * 384
    numbers = struct.pack("<IQ", raw.UINT32, 10**9)
    twice = struct.pack("<IQ", raw.STRING, 4) + raw.text("") + raw.text("") + raw.text("a") + raw.text("a\0b")
    template = raw.entry("tokenizer.chat_template", raw.STRING, raw.text("x" * 2_000_000))
    for content, why in (
        (b"", "is no GGUF file"),
        (raw.file(sound, version=99), "version 99"),
        (raw.file(sound, counts=(2**60, len(sound))), "no model has so many"),
        (raw.file([raw.entry("a", raw.ARRAY, numbers)]), "1,000,000,000 items"),
        (raw.file(sound, [raw.tensor("a", (), dimensions=2**31)]), "dimensions"),
        (raw.file([*sound, raw.number("general.alignment", 0)]), "general.alignment = 0"),
        (raw.file([*sound, raw.entry("general.alignment", raw.STRING, raw.text("x"))]), "general.alignment = x"),
        (raw.file([]), "names no architecture"),
        (raw.file([raw.number("general.architecture", 3)]), "names no architecture"),
        (raw.file(sound), "claims 1 layers, and it has 0 tensors"),
        (raw.file(raw.sizes(block_count=0), [EMBEDDING], data=data), "claims 0 layers"),
        (raw.file(raw.sizes(block_count=2**62), [EMBEDDING], data=data), "layers|claims block_count"),
        (raw.file(raw.sizes(block_count=1, embedding_length=10**6), [EMBEDDING], data=data), "claims embedding_length = 1,000,000"),
        (raw.file(raw.sizes(block_count=1, attention__head_count=2**62), [EMBEDDING], data=data), "claims attention.head_count"),
        (raw.file([*sound, epsilon(-1.0)], [EMBEDDING], data=data), "says attention.layer_norm_epsilon = -1.0"),
        (raw.file([*sound, epsilon(math.nan)], [EMBEDDING], data=data), "says attention.layer_norm_epsilon = nan"),
        (raw.file([*sound, raw.entry("tokenizer.ggml.tokens", raw.ARRAY, twice)], [EMBEDDING], data=data), "a token twice"),
        (raw.file(sound, [EMBEDDING], data=data[:100]), "reach to byte"),
        (raw.file(sound, [raw.tensor("a", (2**40, 2**40))], data=data), "reach to byte"),
        (raw.file(sound, [raw.tensor("a", (32, 3), offset=2**50)], data=data), "reach to byte"),
        (raw.file([*sound, template], [EMBEDDING], data=data), "chat template of 2,000,000 characters"),
        (raw.file([*sound, raw.number("split.count", 3)], [EMBEDDING], data=data), "one of 3 parts"),
    ):
        assert why.split("|")[0] in (said := refusal(tmp_path / "m.gguf", content)) or why.split("|")[-1] in said, said


def test_keys_without_end_are_given_up_soon(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as made:  # takes no room on the disk
        made.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 50_000))
        for _ in range(40):
            made.write(raw.text("a") + struct.pack("<IIQ", raw.ARRAY, raw.UINT32, 9_000_000)[:0])
            made.write(struct.pack("<I", raw.STRING) + struct.pack("<Q", 900_000))
            made.seek(900_000, os.SEEK_CUR)
        made.truncate(1 << 40)
    with pytest.raises(LoadError, match="damaged"):
        file.find(str(path))


def test_the_parts_of_a_split_file_are_one(tmp_path: Path) -> None:
    count = raw.entry("split.count", raw.UINT32, struct.pack("<I", 2))
    first = raw.file([*raw.sizes(block_count=1), count], [EMBEDDING], data=b"\0" * 384)
    second = raw.file([count], [raw.tensor("output_norm.weight", (32,))], data=b"\0" * 128)
    names = [tmp_path / f"m-0000{part}-of-00002.gguf" for part in (1, 2)]
    names[0].write_bytes(first)
    with pytest.raises(LoadError, match=r"1 of them are not beside it \(m-00002-of-00002.gguf\)"):
        file.find(str(names[0]))
    names[1].write_bytes(second)
    for name in (*names, tmp_path):
        found = file.find(str(name))
        assert (found.path, sorted(found.tensors)) == (names[0], ["output_norm.weight", "token_embd.weight"])
    names[1].write_bytes(second[:-32])
    with pytest.raises(LoadError, match="cut off"):
        file.find(str(names[0]))


def test_llama_cpp_loads_all_parts_whichever_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
    from openmav.backends import llamacpp

    demo_file.write(tmp_path / "whole.gguf")
    monkeypatch.setattr(gguf, "GGUFWriter", partial(gguf.GGUFWriter, split_max_tensors=40))
    demo_file.write(tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.gguf", "x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]
    logits = []
    for name in ("whole.gguf", "x-00002-of-00002.gguf"):
        own = llamacpp.load(str(tmp_path / name), LoadOptions(threads=1))
        logits.append(own.prefill(own.encode("It is a truth universally"), frozenset()).logits)
        own.close()
    assert torch.equal(*logits)


def test_a_folder_of_safetensors_goes_to_the_other_backend() -> None:
    with pytest.raises(LoadError, match="--backend transformers"):
        file.find(str(demo_file.DEMO_FOLDER))


def test_sizes_of_types_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    assert {int(kind): sizes for kind, sizes in gguf.constants.GGML_QUANT_SIZES.items()} == file.BLOCKS
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    for kind in (gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0):
        writer.add_tensor(kind.name, gguf.quants.quantize(np.ones((3, 64), np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(file.find(str(path)).tensors) == 2
    whole, last = path.read_bytes(), max(t.offset + 3 * 68 for t in gguf_metadata.parse(path).tensors.values())
    assert "reach to byte" in refusal(path, whole[: last - 1])
