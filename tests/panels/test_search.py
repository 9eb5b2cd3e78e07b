"""Searching the generated text: over the borders of tokens, whatever the case, and from one hit to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import make_step
from openmav.panels.widgets.search import SURPRISING, is_in, matches, neighbour, surprising
from openmav.record import Step


def written(*tokens: str) -> list[Step]:
    return [make_step(at, token) for at, token in enumerate(tokens)]


@pytest.mark.parametrize(
    ("tokens", "text", "indexes"),
    [
        ((" Par", "is", " is", " in", " Paris"), "Paris", [0, 4]),
        ((" Par", "is", " is", " in", " Paris"), "is", [1, 2, 4]),
        ((" Par", "is", " is"), "ris is", [0]),
        ((" Par", "is", " is"), " is", [2]),
        ((" Par", "is"), "pARIS", [0]),
        (("banana", " banana"), "an", [0, 1]),  # each token once
        (("a", "a", "a"), "aa", [0, 1]),
        (("one", "\n", "two"), "one two", [0]),
        (("Stra", "ße"), "STRASSE", [0]),
        (("caf", "e\u0301", " x"), "café", [0]),
        (("caf", "é"), "cafe\u0301", [0]),
        (("caf", "é"), "cafe", []),  # another letter
        (("日本", "語", "の日本"), "日本", [0, 2]),
        (("本日", "本語"), "日本", [0]),
        (("😀", "a😀"), "😀", [0, 1]),
        (("ΣΊΣΥΦΟΣ",), "σίσυφος", [0]),
        (("a", "b"), "c", []),
        (("a", "b"), "", []),
        ((), "a", []),
        (("a.b", "axb"), "a.b", [0]),
        (("{", "}"), "{}", [0]),
        (("x\x1b[2Jy",), "y", [0]),
    ],
)
def test_where_a_text_begins(tokens: tuple[str, ...], text: str, indexes: list[int]) -> None:
    assert matches(written(*tokens), text) == indexes


def test_a_character_that_is_split_is_where_it_becomes_whole() -> None:
    steps = [make_step(0, "a"), make_step(1, "<0xC3>", text=""), make_step(2, "<0xA9>", text="é"), make_step(3, "t")]
    assert matches(steps, "é") == [2]
    assert matches(steps, "aét") == [0]
    assert matches(steps, "0xC3") == []


def test_a_special_token_is_found_by_its_name() -> None:
    assert matches([make_step(0, "a"), make_step(1, "<|end|>", text="", special=True)], "<|END") == [1]


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=4), max_size=12), st.integers(0), st.integers(1, 6)
)
def test_every_part_of_the_text_is_found_where_it_begins(tokens: list[str], start: int, length: int) -> None:
    whole = "".join(tokens)
    text = whole[start % max(len(whole), 1) :][:length]
    begins = [at for at, token in enumerate(tokens) for _ in token]  # the token of each character
    places = [at for at in range(len(whole)) if text and whole.lower().startswith(text.lower(), at)]
    assert matches(written(*tokens), text) == sorted({begins[at] for at in places})


def test_a_text_anywhere_in_another() -> None:
    assert is_in("The capital\nof France", "CAPITAL OF")
    assert not is_in("The capital", "capitals")


def test_surprising_tokens() -> None:
    nats = [0.1, SURPRISING, 2.999, 7.0, float("nan"), float("inf")]
    steps = [replace(make_step(at), logprob=-value) for at, value in enumerate(nats)]
    assert surprising(steps) == [1, 3, 5]


@pytest.mark.parametrize(
    ("cursor", "following", "before"), [(-1, 2, 9), (0, 2, 9), (2, 5, 9), (3, 5, 2), (5, 9, 2), (8, 9, 5), (9, 2, 5), (30, 2, 9)]
)
def test_the_next_one_and_the_one_before(cursor: int, following: int, before: int) -> None:
    indexes = [2, 5, 9]
    assert indexes[neighbour(indexes, cursor, 1)] == following
    assert indexes[neighbour(indexes, cursor, -1)] == before
