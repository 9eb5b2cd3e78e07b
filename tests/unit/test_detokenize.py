"""Text from tokens one at a time: whole characters, nothing lost, nothing twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from openmav.backends.base import LoadOptions
from openmav.generation.detokenize import BROKEN, Detokenizer, TokenStrings
from openmav.generation.tokenize import read_prompt
from openmav.panels.widgets.sequence import token_at
from openmav.plugins import registry
from openmav.settings import Settings
from openmav.view import View


def decode_bytes(ids) -> str:
    return bytes(ids).decode("utf-8", "replace")


def feed(ids) -> list[str]:
    text = Detokenizer(decode_bytes)
    return [text.add(i, last=n == len(ids) - 1) for n, i in enumerate(ids)]


@given(st.text(min_size=1, max_size=60))
def test_every_text_comes_out_whole(text: str) -> None:
    ids = list(text.encode())
    assert "".join(feed(ids)) == text


@given(st.text(min_size=1, max_size=20))
def test_no_half_character_is_ever_shown(text: str) -> None:
    if BROKEN not in text:
        assert not any(BROKEN in piece for piece in feed(list(text.encode())))


def test_an_emoji_appears_with_its_last_byte() -> None:
    assert feed(list("a😀b".encode())) == ["a", "", "", "", "😀", "b"]


def test_bytes_that_never_become_a_character_are_not_held_for_ever() -> None:
    pieces = feed([0xE2] * 20 + [ord("x")])
    assert any(BROKEN in piece for piece in pieces[:10])
    assert pieces[-1].endswith("x")


def test_what_waits_at_the_end_comes_out() -> None:
    assert feed([ord("a"), 0xF0, 0x9F]) == ["a", "", BROKEN]


@given(st.text(min_size=2, max_size=30), st.data())
def test_cut_back_and_go_on(text: str, data) -> None:
    ids = list(text.encode())
    keep = data.draw(st.integers(0, len(ids) - 1))
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.add(i) for i in ids]
    detokenizer.truncate(keep)
    assert [detokenizer.add(i) for i in ids[keep:]] == pieces[keep:]


def test_a_piece_keeps_the_space_that_a_lone_decode_would_strip() -> None:
    words = {0: "a", 1: " Paris"}

    def sentencepiece_like(ids) -> str:
        return "".join(words[i] for i in ids).removeprefix(" ")

    assert sentencepiece_like([1]) == "Paris"
    assert TokenStrings(sentencepiece_like, anchor=0)[1] == " Paris"


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    words = {0: b"a", 1: b"\xf0", 2: b" \xe2\x80", 3: "\ufffd".encode(), 4: b"\x80!"}

    def decode(ids) -> str:
        return b"".join(words[i] for i in ids).decode(errors="replace")

    known = TokenStrings(decode, 0, words.get)
    assert [known[i] for i in (0, 1, 2, 3, 4)] == ["a", "<0xF0>", " <0xE2><0x80>", BROKEN, "<0x80>!"]
    assert TokenStrings(decode, 0)[1] == TokenStrings(decode, 0, lambda _: None)[1] == BROKEN
    assert TokenStrings(decode, 0, lambda _: b"abc")[1] == BROKEN, "bytes that the decoder does not agree with"


def test_parts_of_characters_in_a_prompt_are_named_too() -> None:
    backend = registry.load("backends", "toy").load("toy", LoadOptions(), None)
    prompt = read_prompt(backend, Settings(model="toy", backend="toy", prompt="a\u00e9b"))
    assert "".join(prompt.tokens) == "a\u00e9b"
    assert prompt.parts == {1: "<0xC3>", 2: "<0xA9>"}
    view = replace(View(), prompt=prompt)
    assert [token_at(view, at) for at in range(4)] == ["a", "<0xC3>", "<0xA9>", "b"]
    assert read_prompt(backend, Settings(model="toy", backend="toy", prompt="abc")).parts == {}
