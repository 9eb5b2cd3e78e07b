"""What each stage of sampling leaves: checked against distributions made by hand, one stage after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openmav.backends.base import Frame
from openmav.generation.sampler import Sampler
from openmav.measures import sampling_stages
from openmav.measures.base import Context
from openmav.record import SAMPLING_STAGES, USUAL_STAGES
from openmav.settings.sampling import Sampling

LOGITS = torch.tensor([3.0, 2.5, 1.0, 0.5, -1.0, -3.0])
ON, SURVIVORS, KEPT, ENTROPY, CHOSEN = range(5)


def measured(sampling: Sampling, logits: torch.Tensor = LOGITS, ids: tuple[int, ...] = (0,)) -> tuple[np.ndarray, int, bool]:
    """(rows, the chosen token, greedy)"""
    choice = Sampler(sampling).choose(logits, ids)
    context = Context(logits, choice.probs, choice.sampled_probs, choice.top_ids, choice.token_id, stages=choice.stages, sampling=sampling)
    found = sampling_stages.compute(Frame(logits), context)
    usual = [SAMPLING_STAGES.index(name) for name in USUAL_STAGES]
    return (
        found["sampling_stages"][usual],
        choice.token_id,
        bool(found["sampling_stages.settings"][SAMPLING_STAGES.index("temperature")] == 0),
    )


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()


def test_each_stage_by_hand() -> None:
    rows, token, greedy = measured(Sampling(temperature=0.5, top_k=4, top_p=0.9, min_p=0.4, repetition_penalty=1.5))
    assert not greedy
    scores = LOGITS.double().numpy().copy()
    raw = softmax(scores)
    scores[0] /= 1.5
    penalised = softmax(scores)
    hot = softmax(scores / 0.5)
    order = np.argsort(-hot)
    four = np.where(np.isin(np.arange(6), order[:4]), hot, 0)
    p4 = four / four.sum()
    reach = int(np.searchsorted(np.cumsum(p4[order]), 0.9)) + 1
    nucleus = np.where(np.isin(np.arange(6), order[:reach]), p4, 0)
    p9 = nucleus / nucleus.sum()
    last = np.where(p9 >= 0.4 * p9.max(), p9, 0)
    expected = [
        (raw, 1.0),
        (raw, 1.0),
        (penalised, 1.0),
        (hot, 1.0),
        (p4, four.sum()),
        (p9, nucleus.sum()),
        (last / last.sum(), last.sum()),
    ]
    assert [row[ON] for row in rows] == [1, 0, 1, 1, 1, 1, 1]
    for row, (probs, kept) in zip(rows, expected):
        assert row[SURVIVORS] == (probs > 0).sum()
        assert row[KEPT] == pytest.approx(kept, abs=1e-6)
        assert row[ENTROPY] == pytest.approx(-sum(p * math.log(p) for p in probs if p > 0), abs=1e-6)
        assert row[CHOSEN] == pytest.approx(probs[token], abs=1e-6)


def test_what_is_off_leaves_all_as_it_was() -> None:
    rows, _, _ = measured(Sampling(temperature=1.0, top_k=2))
    assert [USUAL_STAGES[i] for i, row in enumerate(rows) if row[ON]] == ["raw", "top-k"]
    assert rows[1][1:] == pytest.approx(rows[0][1:])
    assert rows[4][SURVIVORS] == rows[5][SURVIVORS] == 2


def test_greedy_says_so_and_penalises_before() -> None:
    rows, token, greedy = measured(Sampling(repetition_penalty=4.0))
    assert greedy
    assert token == 1
    assert rows[2][ON] == 1
    assert rows[2][CHOSEN] > rows[0][CHOSEN]


def test_the_last_row_is_what_was_drawn_from() -> None:
    sampling = Sampling(temperature=0.8, top_k=3)
    choice = Sampler(sampling).choose(LOGITS, [1])
    rows, token, _ = measured(sampling, ids=(1,))
    assert token == choice.token_id
    assert rows[-1][CHOSEN] == pytest.approx(float(choice.sampled_probs[token]), abs=1e-6)


def test_stages_are_the_chain_of_transformers() -> None:
    sampler = Sampler(Sampling(temperature=0.7, top_k=4, top_p=0.8, min_p=0.05, repetition_penalty=1.3))
    choice = sampler.choose(LOGITS, [0, 4])
    assert sampler.chain is not None
    whole = sampler.chain(torch.tensor([[0, 4]]), LOGITS[None].clone())[0]
    assert torch.equal(choice.stages[-1].scores, whole)
    assert [stage.name for stage in choice.stages] == list(USUAL_STAGES[2:])


def test_nan_shows() -> None:
    rows, _, _ = measured(Sampling(temperature=1.0), LOGITS * float("nan"))
    assert np.isnan(rows[:, ENTROPY]).all()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=0), Sampling(temperature=0.7, repetition_penalty=2.0)])
def test_a_constraint_comes_before_all_else(sampling: Sampling) -> None:
    allowed = torch.tensor([False, False, True, True, False, True])
    choice = Sampler(sampling).choose(LOGITS, [2], None, allowed)
    assert choice.stages[0].name == "constraint"
    assert torch.equal(choice.stages[0].scores[allowed], LOGITS[allowed])
    assert (choice.stages[0].scores[~allowed] == float("-inf")).all()
    assert bool(allowed[choice.token_id])
    assert (choice.sampled_probs[~allowed] == 0).all()
    assert torch.equal(choice.probs, Sampler(sampling).choose(LOGITS, [2]).probs), "the raw probabilities stay the model's own"
