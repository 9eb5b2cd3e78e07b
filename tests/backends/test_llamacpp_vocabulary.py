"""llama.cpp's tokens: the same ids and texts as transformers', and what a GGUF file says of its special tokens, templates and sampling."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from openmav.backends.llamacpp import demo_file, sampling_keys
from openmav.backends.llamacpp.vocabulary import Vocabulary
from openmav.backends.loading import gguf_metadata
from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.backends.transformers.tokens.token_bytes import spelling
from openmav.backends.transformers.tokens.tokens import Tokens
from openmav.errors import LoadError, UsageError
from openmav.settings.sampling import Sampling

llama = pytest.importorskip("llama_cpp.llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
gguf = pytest.importorskip("gguf")
QUIET = llama.llama_log_callback(lambda *_: None)
TEXTS = (
    "",
    " ",
    " \n\n\t x  ",
    "It is a truth, [bold] and\r\n\r\nso on",
    "中文字符 と 日本語 한국어 العربية עברית हिन्दी ไทย",
    "😀🦕👩‍👩‍👧 naïve café e\u0301 \u200b\ufeff\u00a0",
    "don't I'll we've THEY'RE 1234567 3.14 1,000 __init__ == != ->",
    "x\0y",
    "a<|endoftext|>b <|im_start|>user\n<|im_end|> c",
)


def opened(path: Path) -> Vocabulary:
    """The vocabulary of a file; its weights are not read, and llama.cpp keeps it until the tests end."""
    llama.llama_log_set(QUIET, None)
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    assert model
    return Vocabulary(llama, llama.llama_model_get_vocab(model), gguf_metadata.parse(path))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("gguf") / "demo.gguf"
    demo_file.write(path)
    return opened(path)


def written(path: Path, add: Callable[[Any], object]) -> Vocabulary:
    """A file of a vocabulary alone, of four plain tokens for the letters and one that is special."""
    writer = gguf.GGUFWriter(path, "llama")
    tokens = ["<s>", "a", "b", "ab", "Ġ", "Ċ", "<end>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 1, 1, 1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    add(writer)
    whole(writer)
    return opened(path)


def whole(writer: Any) -> None:
    """The numbers of an architecture that llama.cpp asks for, and the end of the file."""
    for key, value in (("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8)):
        getattr(writer, f"add_{key}")(value)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def agrees(own: Vocabulary, folder: Path) -> None:
    other = Tokens(AutoTokenizer.from_pretrained(folder))
    for text in TEXTS:
        ids = own.encode(text)
        assert ids == other.encode(text, False)
        assert own.decode(ids) == text
    assert own.special_ids == other.special_ids
    size = own.size
    assert own.spelling().after == tuple(map(tuple, spelling(other.tokenizer, other.special_ids, other.decode, size).after))
    draw = random.Random(0)
    for _ in range(500):  # characters begin and end anywhere
        ids = [draw.randrange(size) for _ in range(draw.randrange(1, 8))]
        assert own.decode(ids) == other.decode(ids)
        assert [own.bytes_of(i) for i in ids] == [other.bytes_of(i) for i in ids]


def test_the_bundled_model_reads_and_writes_as_with_transformers(demo: Vocabulary) -> None:
    agrees(demo, demo_file.DEMO_FOLDER)
    assert demo.end_ids == {0}
    assert (demo.is_special(0), demo.is_special(11)) == (True, False)


@pytest.mark.real
def test_the_real_model_reads_and_writes_as_with_transformers(real_folder: Path) -> None:
    path = real_folder.parent / f"{real_folder.name}.Q4_1.gguf"
    if not path.is_file():
        pytest.skip("the real model is not there as a GGUF file")
    own = opened(path)
    agrees(own, real_folder)
    assert 2 in own.end_ids
    message = "Grüße 😀 {{ not a template }}\n"
    assert own.encode(message, chat=True) == Tokens(AutoTokenizer.from_pretrained(real_folder)).encode(message, True)


def test_special_tokens_are_as_the_file_says(tmp_path: Path) -> None:
    def add(writer: Any) -> None:
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(6)
        writer.add_add_bos_token(True)
        writer.add_eot_token_id(10**6)  # which the vocabulary does not have

    own = written(tmp_path / "a.gguf", add)
    assert own.encode("ab") == [0, 3]
    assert own.encode("a<end>") == [0, 1, 6]
    assert own.end_ids == {6}
    assert own.decode([0, 3, 6]) == "<s>ab<end>"
    bare = written(tmp_path / "b.gguf", lambda writer: writer.add_eos_token_id(6))
    assert bare.encode("ab") == [3]


def test_chat_templates_of_the_file(tmp_path: Path) -> None:
    def add(writer: Any) -> None:
        writer.add_bos_token_id(0)
        writer.add_add_bos_token(True)
        template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
        endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        writer.add_chat_template([{"name": "default", "template": template}, {"name": "endless", "template": endless}])

    own = written(tmp_path / "a.gguf", add)
    assert own.encode("ab", chat=True) == [0, 3]  # one token of the beginning, the template's
    with pytest.raises(UsageError, match="does not come to an end"):
        own.encode("ab", chat="endless")
    with pytest.raises(UsageError, match=r"no chat template 'tools'. Known: default, endless"):
        own.encode("ab", chat="tools")
    with pytest.raises(UsageError, match="no chat template; run without --chat"):
        written(tmp_path / "b.gguf", lambda _writer: None).encode("ab", chat=True)


def sentencepiece(path: Path, bytes_of_tokens: range) -> list[str]:
    """Writes a file with such a vocabulary alone, with tokens for these bytes; its tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    plain = {"▁": -1.0, "a": -2.0, "b": -3.0, "▁a": -0.7, "▁ab": -0.5, "ab": -0.6, "▁▁": -0.9}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in bytes_of_tokens), *plain]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (len(tokens) - len(plain)) + list(plain.values()))
    writer.add_token_types([2, 3, 3, *[6] * len(bytes_of_tokens), *[1] * len(plain)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    whole(writer)
    return tokens


def test_a_space_that_the_tokenizer_puts_first_is_no_part_of_the_text(tmp_path: Path) -> None:
    tokens = sentencepiece(tmp_path / "a.gguf", range(256))
    own = opened(tmp_path / "a.gguf")
    ids = own.encode("ab a 🦕")
    assert [tokens[i] for i in ids[:3]] == ["<s>", "▁ab", "▁a"]
    assert own.decode(ids[1:]) == "ab a 🦕"
    assert own.decode(ids) == "<s> ab a 🦕"
    assert own.bytes_of(ids[-1]) == b"\x95"
    assert own.spelling().after[0][ids[1]] == b" ab"
    assert own.special_ids == {0, 1, 2}


def test_a_vocabulary_that_lacks_bytes_is_refused(tmp_path: Path) -> None:
    sentencepiece(tmp_path / "a.gguf", range(128))
    with pytest.raises(LoadError, match="no token for 128 bytes, such as 0xFF"):
        opened(tmp_path / "a.gguf")


def header(**keys: Any) -> GgufHeader:
    return GgufHeader(Path("x.gguf"), {f"general.sampling.{key}": value for key, value in keys.items()}, {})


def test_sampling_settings_of_the_file_are_the_defaults() -> None:
    assert sampling_keys.defaults(header()).used == {}
    found = sampling_keys.defaults(header(temp=0.5, top_k=40, top_p=0.75, min_p=0.125, penalty_repeat=1.5, mirostat=2, xtc_probability=0.0))
    assert found.sampling == Sampling(temperature=0.5, top_k=40, top_p=0.75, min_p=0.125, repetition_penalty=1.5)
    assert found.used == {"temperature": 0.5, "top_k": 40, "top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.5}
    assert found.left_out == {"mirostat": 2}
    for wrong in ({"temp": "hot"}, {"temp": float("nan")}, {"top_p": 7.0}, {"top_k": True}):
        with pytest.raises(LoadError, match="--ignore-generation-config"):
            sampling_keys.defaults(header(**wrong))
