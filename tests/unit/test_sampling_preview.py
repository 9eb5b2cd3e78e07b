"""A preview of sampling parameters: checked against softmax by hand, and without a trace in the run."""

from __future__ import annotations

import numpy as np
import pytest

from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.record import SAMPLING_STAGES
from openmav.settings import Settings
from openmav.settings.sampling import Sampling
from unit.test_branches import identical

DRAWN = Sampling(temperature=0.9, top_k=30, seed=5)


def begin(sampling: Sampling = DRAWN, **changes: object) -> Session:
    return open_session(Settings(model="toy?endless=1", backend="toy", prompt="abc", candidates=512, sampling=sampling, **changes))  # type: ignore[arg-type]


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()


def test_each_stage_by_hand() -> None:
    session = begin()
    for _ in range(3):
        step = session.step()
    assert len(step.candidates) == session.info.vocab, "all tokens are candidates here, so that a softmax over them is the model's own"
    logits = step.candidates.logits.astype(np.float64)
    preview = session.preview_sampling(Sampling(temperature=1.7, top_k=6, top_p=0.8))
    assert preview is not None
    assert preview.stages == ("raw", "temperature", "top-k", "top-p")
    assert (preview.index, preview.token_id) == (2, step.token_id)
    hot = softmax(logits / 1.7)
    order = np.argsort(-logits)
    six = np.where(np.isin(np.arange(len(hot)), order[:6]), hot, 0)
    six /= six.sum()
    reach = int(np.searchsorted(np.cumsum(six[order]), 0.8)) + 1
    nucleus = np.where(np.isin(np.arange(len(hot)), order[:reach]), six, 0)
    expected = [softmax(logits), hot, six, nucleus / nucleus.sum()]
    np.testing.assert_allclose(preview.probs, expected, atol=2e-6)
    rows = preview.values["sampling_stages"]
    assert [rows[SAMPLING_STAGES.index(name), 1] for name in preview.stages] == [len(hot), len(hot), 6, reach]
    np.testing.assert_allclose(preview.values["distribution"][0, 1], expected[-1].max(), atol=2e-6)


def test_greedy_leaves_one_token() -> None:
    session = begin()
    step = session.step()
    preview = session.preview_sampling(Sampling(repetition_penalty=1.5))
    assert preview is not None
    assert preview.stages == ("raw", "penalty", "greedy")
    assert (preview.sampled == 1).sum() == 1
    assert preview.sampled.sum() == 1
    np.testing.assert_array_equal(preview.raw, step.candidates.probs)


@pytest.mark.parametrize("undone", [0, 2])
def test_the_run_goes_on_as_if_nothing_had_been_asked(undone: int) -> None:
    asked, other = begin(), begin()
    for session in (asked, other):
        for _ in range(8):
            session.step()
        session.back(undone)
    before = list(asked.steps)
    for sampling in (Sampling(), Sampling(temperature=3.0, top_k=0), DRAWN):
        preview = asked.preview_sampling(sampling)
        assert preview is not None
        assert preview.index == 7 - undone
        np.testing.assert_array_equal(preview.raw, before[-1].candidates.probs)
    assert asked.steps == before
    assert asked.sampling == DRAWN
    assert all(identical(asked.step(), other.step()) for _ in range(6))


def test_there_is_none_before_the_first_token() -> None:
    assert begin().preview_sampling(Sampling()) is None
