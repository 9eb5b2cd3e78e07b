"""Constrained text with vocabularies of several kinds: what their tokens spell, and decoders that put something between them."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from openmav.backends.base import TokenBytes
from openmav.backends.transformers import wrap
from openmav.errors import UsageError
from openmav.generation.session import Session
from openmav.settings import Settings
from openmav.settings.constraint import Constraint
from openmav.settings.sampling import Sampling

SAMPLES = ["It is a truth, universally.", "naïve café 文字 👩‍👩‍👧\n\ttabs  and   spaces", '{"a": [1, 2.5]}']


def spelling_of(tokenizer: object) -> TokenBytes:
    from openmav.backends.transformers.tokens.token_bytes import spelling
    from openmav.backends.transformers.tokens.tokens import Tokens

    tokens = Tokens(tokenizer)
    return spelling(tokenizer, tokens.special_ids, tokens.decode, len(tokenizer))  # type: ignore[arg-type]


def spelled(tokenizer: object, text: str) -> bytes:
    found = spelling_of(tokenizer)
    return found.text(tokenizer(text, add_special_tokens=False)["input_ids"], -1)  # type: ignore[operator]


@pytest.mark.parametrize("text", SAMPLES)
def test_a_byte_level_vocabulary_spells_the_text(text: str) -> None:
    from transformers import AutoTokenizer

    import openmav

    tokenizer = AutoTokenizer.from_pretrained(Path(openmav.__file__).parent / "demo" / "model")
    assert spelled(tokenizer, text) == text.encode()


@pytest.mark.real
@pytest.mark.parametrize("text", SAMPLES)
def test_the_real_vocabulary_spells_the_text(real_folder: Path, text: str) -> None:
    from transformers import AutoTokenizer

    assert spelled(AutoTokenizer.from_pretrained(real_folder), text) == text.encode()


@pytest.mark.parametrize("text", SAMPLES)
def test_a_sentencepiece_vocabulary_spells_the_text(text: str) -> None:
    """As Llama 2's: pieces with ▁ for a space, and bytes for what has no piece."""
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    letters = 'abcdefghijklmnopqrstuvwxyzITD,.▁{}[]:"0123456789'
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in [*letters, "▁t", "ru"]:
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, [("▁", "t"), ("r", "u")], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert spelled(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>"), text) == text.encode()


LETTERS = string.ascii_lowercase


def word_pieces(folder: Path) -> Any:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + letter for letter in LETTERS), ".", ",", "the", "no", "##ing"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, eos_token="[SEP]")


def words_with_ends(folder: Path) -> Any:
    return fast_tokenizer(
        [*LETTERS, *(letter + "</w>" for letter in LETTERS), "no</w>", ".</w>"], decoders.BPEDecoder(suffix="</w>"), "</w>"
    )


def whole_words(folder: Path) -> Any:
    return fast_tokenizer([*LETTERS, "no", "the", "."], None)


def fused_and_stripped(folder: Path) -> Any:
    names = [f"<0x{byte:02X}>" for byte in range(256)] + [*LETTERS, *("▁" + letter for letter in LETTERS), "▁", "no"]
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return fast_tokenizer(names, decoders.Sequence(steps))


def fast_tokenizer(names: list[str], decoder: Any, ending: str | None = None) -> Any:
    from transformers import PreTrainedTokenizerFast

    vocab = {name: i for i, name in enumerate(["<unk>", "</s>", *names])}
    made = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", **({"end_of_word_suffix": ending} if ending else {})))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def run_with(tokenizer: Any, seed: int, **asked: Any) -> Session:
    """A tiny random GPT-2 over that vocabulary."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    sampling = Sampling(temperature=4.0, top_k=0, seed=seed)
    given_ = Settings(prompt="no no a", constraint=Constraint(**asked), max_new_tokens=16, sampling=sampling)
    session = Session(wrap(GPT2LMHeadModel(config), tokenizer, "tiny"), given_)
    list(session)
    return session


@pytest.mark.parametrize("make", [word_pieces, words_with_ends, fused_and_stripped])
def test_a_text_keeps_to_its_form_whatever_the_decoder_puts_between_tokens(make: Callable[[Path], Any], tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    tokenizer = make(tmp_path)
    for seed in range(4):
        for pattern in ("[a-z]{5}", "( [a-z]{1,3}){4}", " ?[a-z]{3} no"):
            session = run_with(tokenizer, seed, regex=pattern)
            whole = tokenizer.decode(session.token_ids, clean_up_tokenization_spaces=False)
            if session.reason == "stuck":
                assert make is words_with_ends, "a word's space comes with what follows it, so that a pattern may have no first token"
            elif session.reason in ("complete", "eos"):
                text = "".join(step.text for step in session.steps if not step.special)
                assert re.fullmatch(pattern, text), (pattern, text)
                assert text in whole
        free = run_with(tokenizer, seed, ban=(" ", "o"))
        assert not {" ", "o"} & {*"".join(step.text for step in free.steps if not step.special)}


def test_words_that_all_have_a_space_before_them_are_held_too(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    session = run_with(whole_words(tmp_path), 0, regex="( [a-z]{1,3}){5}")
    assert re.fullmatch("( [a-z]{1,3}){5}", "".join(step.text for step in session.steps if not step.special))
    assert run_with(whole_words(tmp_path), 0, regex="[a-z]+").reason == "stuck"


def test_a_decoder_that_changes_what_stood_there_is_refused(tmp_path: Path) -> None:
    for decoder in (decoders.CTC(), decoders.Sequence([decoders.Fuse(), decoders.Replace("@@", "x")])):
        names = [*LETTERS, "@"]
        with pytest.raises(UsageError, match="vocabulary cannot be constrained") as caught:
            run_with(fast_tokenizer([*names, "no"], decoder), 0, ban=("b",))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", [{"regex": "X[a-z]+"}, {"json_schema": '{"type": "integer"}'}, {"regex": "( [a-z]){2}X"}])
def test_a_vocabulary_that_cannot_spell_it_ends_as_stuck(asked: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    session = run_with(word_pieces(tmp_path), 0, **asked)
    assert session.reason == "stuck"
    assert not any(step.special for step in session.steps)
    session.back(5)
    assert session.reason in (None, "stuck")
