"""The toy backend is a true little transformer: its parts add up, its rows are distributions, rewinding is exact."""

from __future__ import annotations

import pytest
import torch

from openmav.backends.base import LoadOptions
from openmav.backends.sites import SITES
from openmav.backends.toy import load
from openmav.backends.toy.model import LAYERS
from openmav.backends.toy.vocabulary import END, FIRST, VOCABULARY, WORDS
from openmav.errors import LoadError

IDS = [73, 106, 20, 9]


def test_the_parts_add_up() -> None:
    toy = load("toy", LoadOptions())
    frame = toy.prefill(IDS, SITES)
    x = toy.embedding[IDS[-1]] + toy.positions[len(IDS) - 1]
    for layer in range(LAYERS):
        added = frame.sites["attention.out"][layer], frame.sites["mlp.out"][layer]
        x = x + added[0] + added[1]
        torch.testing.assert_close(frame.sites["residual.after"][layer], x)
        rows, scores = frame.sites["attention.probs"][layer], frame.sites["attention.scores"][layer]
        assert rows is not None
        assert scores is not None
        assert rows.shape == (4, len(IDS))
        torch.testing.assert_close(rows, torch.softmax(scores, -1))
    logits = toy.embedding @ x / 64
    logits[FIRST] += 6
    torch.testing.assert_close(frame.logits, logits)
    assert frame.head is not None
    found = frame.head.directions(x, [FIRST], frame.logits)
    assert found is not None
    assert float(found.vectors[0] @ x + found.constants[0]) == pytest.approx(float(found.logits[0]), abs=1e-5)


def test_capture_changes_nothing_and_rewinding_is_exact() -> None:
    toy = load("toy", LoadOptions())
    toy.prefill(IDS, frozenset())
    bare = toy.decode_one_token(FIRST, frozenset()).logits
    toy.decode_one_token(FIRST + 1, SITES)
    toy.rewind(len(IDS))
    assert toy.length == len(IDS)
    assert torch.equal(toy.decode_one_token(FIRST, SITES).logits, bare)


def test_left_alone_it_recites_its_words_and_ends() -> None:
    toy = load("toy", LoadOptions())
    logits = toy.prefill(toy.encode("Hi"), frozenset()).logits
    said = []
    while (token := int(logits.argmax())) not in toy.end_ids:
        said.append(token)
        logits = toy.decode_one_token(token, frozenset()).logits
    assert said == list(range(FIRST, FIRST + len(WORDS)))
    assert token == END
    assert toy.decode(said) == b"".join(VOCABULARY[FIRST:]).decode()


def test_switches() -> None:
    toy = load("toy?endless=1&context=300&bare=2", LoadOptions())
    assert toy.info.context == 300
    assert toy.missing["mlp.out"] == {2: "switched off"}
    frame = toy.prefill([len(VOCABULARY) - 1], SITES)
    assert int(frame.logits.argmax()) == FIRST
    assert frame.sites["mlp.out"][2] is None
    with pytest.raises(LoadError, match="slo"):
        load("toy?slo=1", LoadOptions())
    with pytest.raises(LoadError, match="slow"):
        load("toy?slow=x", LoadOptions())
    with pytest.raises(LoadError, match="CPU"):
        load("toy", LoadOptions(device="cuda"))
    failing = load("toy?fail=1", LoadOptions())
    failing.prefill(IDS, frozenset())
    with pytest.raises(RuntimeError, match="the toy failed"):
        failing.decode_one_token(FIRST, frozenset())
