"""Choosing: the ecosystem's chain, reproducible draws, and numbers that are the raw model's."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openmav.backends.shared.largest import SMALL, most_likely
from openmav.errors import UsageError
from openmav.generation.sampler import Sampler, build_chain
from openmav.settings.sampling import Sampling, SamplingOptions

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])


def test_greedy_takes_the_largest_and_shows_it_as_certain() -> None:
    choice = Sampler(Sampling()).choose(LOGITS, [0])
    assert choice.token_id == 0
    assert choice.sampled_probs.tolist() == [1, 0, 0, 0, 0]
    assert torch.allclose(choice.probs, torch.softmax(LOGITS, -1))


def test_a_penalty_changes_the_choice_and_not_the_raw_numbers() -> None:
    choice = Sampler(Sampling(repetition_penalty=4.0)).choose(LOGITS, [0])
    assert choice.token_id == 1
    assert choice.logprob == pytest.approx(float(torch.log_softmax(LOGITS, -1)[1]))
    assert LOGITS[0] == 2.0


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40, unique=True))
def test_entropy_and_probabilities_keep_their_bounds(values: list[float]) -> None:
    logits = torch.tensor(values)
    choice = Sampler(Sampling(temperature=0.7, top_k=3, top_p=0.9)).choose(logits, [0])
    p = np.asarray(choice.probs, dtype=np.float64)
    assert 0 <= choice.entropy <= math.log(len(values)) + 1e-5
    assert choice.entropy == pytest.approx(-sum(x * math.log(x) for x in p if x > 0), abs=1e-4)
    assert float(choice.sampled_probs.sum()) == pytest.approx(1, abs=1e-5)
    assert choice.sampled_probs[choice.token_id] > 0
    kept = (logits / 0.7).topk(min(3, len(values))).values[-1]  # ties with the third may stay
    assert bool((logits[choice.sampled_probs > 0] / 0.7 >= kept).all())


def test_the_stages_stand_in_the_order_of_transformers() -> None:
    chain = build_chain(Sampling(temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.2))
    names = [type(stage).__name__ for stage in chain]
    assert names == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
    ]
    assert build_chain(Sampling()) is None


def test_draws_follow_their_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_k=0))
    draws = [sampler.choose(LOGITS, [0]).token_id for _ in range(4000)]
    seen = np.bincount(draws, minlength=5) / len(draws)
    assert np.abs(seen - torch.softmax(LOGITS, -1).numpy()).max() < 0.03


def test_the_state_of_the_generator_brings_a_draw_back() -> None:
    sampler = Sampler(Sampling(temperature=1.0))
    state = sampler.state
    first = [sampler.choose(LOGITS, [0]).token_id for _ in range(20)]
    sampler.state = state
    assert [sampler.choose(LOGITS, [0]).token_id for _ in range(20)] == first


def test_a_forced_token_draws_nothing() -> None:
    forced, free = Sampler(Sampling(temperature=1.0)), Sampler(Sampling(temperature=1.0))
    assert forced.choose(LOGITS, [0], forced=4).token_id == 4
    assert [forced.choose(LOGITS, [0]).token_id for _ in range(20)] == [free.choose(LOGITS, [0]).token_id for _ in range(20)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_logits_do_not_crash_and_show_as_nan(temperature: float) -> None:
    choice = Sampler(Sampling(temperature=temperature)).choose(LOGITS * float("nan"), [0])
    assert math.isnan(choice.entropy)
    assert math.isnan(choice.logprob)


@pytest.mark.parametrize("temperature", [5e-324, 2.3e-308, 1e-45, 1.2e-38, 1e-30, 9e-26, 1e-25, 1e-20, 1e-6])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_smallest_temperatures_take_the_largest(temperature: float, scale: float) -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3)) * scale
    sampler = Sampler(Sampling(temperature=temperature, top_p=0.9, min_p=0.01, repetition_penalty=1.1))
    for ids in ([0], [int(logits.argmax())]):
        penalised = build_chain(Sampling(repetition_penalty=1.1))(torch.tensor([ids]), logits[None])[0]
        choice = sampler.choose(logits, ids)
        assert choice.token_id == int(penalised.argmax())
        assert float(choice.sampled_probs[choice.token_id]) == pytest.approx(1)
        assert bool(torch.isfinite(choice.sampled_probs).all())


@pytest.mark.parametrize("temperature", [1e6, 1e38, 1e39, 1e300])
def test_the_largest_temperatures_draw_evenly(temperature: float) -> None:
    choice = Sampler(Sampling(temperature=temperature, top_k=0)).choose(LOGITS, [0])
    assert choice.sampled_probs.numpy() == pytest.approx(np.full(5, 0.2), abs=1e-5)


@pytest.mark.parametrize("penalty", [1e-10, 1e10])
@pytest.mark.parametrize("temperature", [0.0, 1e-25, 1.0])
def test_the_largest_penalties_stay_in_range(penalty: float, temperature: float) -> None:
    choice = Sampler(Sampling(temperature=temperature, repetition_penalty=penalty)).choose(LOGITS, [0, 3])
    assert bool(torch.isfinite(choice.sampled_probs).all())
    assert float(choice.sampled_probs.sum()) == pytest.approx(1)


def test_a_small_number_is_not_written_as_0() -> None:
    assert Sampling(temperature=0.0004, top_k=0).describe() == "T 0.0004"
    assert Sampling(temperature=1e-30).describe() == "greedy"
    assert (
        Sampling(temperature=0.5, top_k=0, top_p=5e-324, stages=(("eta", 0.1),)).describe()
        == "T 0.50 · top-p 5e-324 · 1 more of the model's"
    )


def test_options_fill_in_from_the_defaults() -> None:
    defaults = Sampling(0.6, 20, 0.9, 0.1, 1.3, 7, (("eta", 0.1),))
    assert SamplingOptions().over(defaults) == defaults
    assert SamplingOptions(temperature=0, seed=0).over(defaults) == Sampling(0, 20, 0.9, 0.1, 1.3, 0, (("eta", 0.1),))
    assert SamplingOptions(top_k=0, min_p=0).given == {"top_k", "min_p"}
    with pytest.raises(UsageError):
        SamplingOptions(temperature=float("nan"))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": float("inf")},
        {"repetition_penalty": 1e-11},
        {"repetition_penalty": float("nan")},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 2},
        {"top_p": 0},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"seed": -1},
    ],
)
def test_nonsense_is_refused_in_one_line(bad: dict) -> None:
    with pytest.raises(UsageError) as error:
        Sampling(**bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("vocab", [3, 512, 513, SMALL, SMALL + 1, 50000])
@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), float("-inf")])
def test_the_likeliest_are_those_that_torch_finds(vocab: int, odd: float | None) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(vocab))
    if odd is not None:
        logits[vocab // 2] = odd
    found, expected = most_likely(logits.numpy(), 512), torch.topk(logits, min(512, vocab))
    assert torch.equal(torch.from_numpy(found), expected.indices)


def test_of_many_that_tie_no_more_are_named_than_asked_for() -> None:
    logits = np.zeros(SMALL + 1, dtype=np.float32)
    logits[7] = 1.0
    found = most_likely(logits, 512)
    assert (len(found), len(set(found.tolist())), found[0]) == (512, 512, 7)


def test_greedy_choosing_needs_no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.generation.logits_process", None)  # to import it raises
    assert build_chain(Sampling()) is None
    with pytest.raises(ImportError):
        build_chain(Sampling(temperature=0.5))


@pytest.mark.parametrize("kind", ["normal", "ties", "some NaN", "mostly -inf", "sorted"])
@pytest.mark.parametrize("size", [SMALL + 1, 49_152])
def test_the_most_likely_of_many_are_those_of_a_whole_sort(kind: str, size: int) -> None:
    logits = np.random.default_rng(size).normal(size=size).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    elif kind == "some NaN":
        logits[[7, 5000]] = np.nan
    elif kind == "mostly -inf":
        logits[50:] = -np.inf
    elif kind == "sorted":
        logits.sort()
    for count in (1, 10, 512):
        ids = most_likely(logits, count)
        assert len(set(ids.tolist())) == count
        assert np.array_equal(logits[ids], np.sort(logits)[::-1][:count], equal_nan=True)
