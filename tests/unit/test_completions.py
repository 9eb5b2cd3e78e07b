"""What a condition may go on with: every name, found by its beginning or a part, put where the word stands."""

from __future__ import annotations

import pytest

from openmav.conditions import completions, known_names, parse


def offered(text: str, cursor: int | None = None) -> list[str]:
    return [one.name for one in completions(text, len(text) if cursor is None else cursor)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("ent", "entropy"),
        ("entropy > 3 and sur", "surprisal"),
        ("max(norm(att", "attention"),
        ("norm(", "mlp"),
        ("norm( re", "residual"),
        ("LENS", "lens"),
        ("abs(previous(log", "logprob"),
    ],
)
def test_the_first_is_the_likeliest(text: str, first: str) -> None:
    assert offered(text)[0] == first


@pytest.mark.parametrize("text", ["", "entropy > ", 'token ~ "ent', "token ~ 'a\\'ent", "zzz", "nan", "4"])
def test_there_is_nothing_to_offer(text: str) -> None:
    assert offered(text) == []


def test_a_closed_text_is_no_longer_in_the_way() -> None:
    assert offered('token ~ "a" and ran') == ["rank"]


def test_every_name_is_offered_for_its_own_beginning_and_says_what_it_is() -> None:
    for name in known_names():
        found = {one.name: one for one in completions(name[:-1], len(name) - 1)}
        assert found[name].about, name
        assert found[name].put(name[:-1], len(name) - 1)[0].rstrip("([") == name


def test_the_rest_of_the_text_stays() -> None:
    (one,) = completions("nor(mlp, 3) > 1", 3)[:1]
    assert one.put("nor(mlp, 3) > 1", 3) == ("norm(mlp, 3) > 1", 5)
    parse(one.put("nor(mlp, 3) > 1", 3)[0])
    (one,) = completions("1 < entrop and nan", 8)[:1]
    assert one.put("1 < entrop and nan", 8) == ("1 < entropy and nan", 11)
