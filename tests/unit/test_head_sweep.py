"""A sweep of heads amid a run: each change is that of the run with this head ablated, and the run does not notice."""

from __future__ import annotations

import numpy as np
import pytest

from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.record import Candidates
from openmav.settings import Settings
from openmav.settings.sampling import Sampling
from unit.test_branches import identical


def begin() -> Session:
    sampling = Sampling(temperature=0.9, top_k=30, seed=5)
    return open_session(Settings(model="toy?endless=1", backend="toy", prompt="abc", candidates=512, sampling=sampling))


def logit_of(candidates: Candidates, token_id: int) -> float:
    return float(candidates.logits[candidates.token_ids.tolist().index(token_id)])


def test_each_change_is_that_of_an_ablation_in_the_run() -> None:
    session = begin()
    for _ in range(5):
        session.step()
    maps = list(session.sweep_sites(4))
    last, info = maps[-1], session.info
    assert [one.done for one in maps] == list(range(last.total + 1))
    assert not last.under_way
    assert maps[-2].under_way
    for layer in range(info.layers):
        for head in range(info.heads):
            if session.backend.why_not(session_head(layer, head)) is not None:  # type: ignore[attr-defined]
                assert not last.known[layer, head]
                continue
            step = session.intervene((f"ablate L{layer}.H{head}",))
            assert step is not None
            assert step.before is not None
            change = logit_of(step.candidates, last.token_id) - logit_of(step.before.candidates, last.token_id)
            assert last.changes[layer, head] == pytest.approx(change, abs=1e-4)
    assert np.abs(last.changes).max() > 0.01


def session_head(layer: int, head: int) -> object:
    from openmav.settings.interventions import parse

    return parse(f"ablate L{layer}.H{head}")


@pytest.mark.parametrize("stop", [0, 3, 10**6])
def test_the_run_goes_on_as_if_nothing_had_been_swept(stop: int) -> None:
    swept, other = begin(), begin()
    for session in (swept, other):
        for _ in range(6):
            session.step()
    before = list(swept.steps)
    for at, _ in enumerate(swept.sweep_sites(2)):
        if at == stop:
            break
    assert swept.steps == before
    assert all(identical(swept.step(), other.step()) for _ in range(5))


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_such_token(index: int) -> None:
    session = begin()
    for _ in range(3):
        session.step()
    with pytest.raises(UsageError, match="there is no token"):
        next(session.sweep_sites(index))


@pytest.mark.parametrize(
    ("what", "how", "spec"), [("mlp", "zero", "ablate L{}.mlp"), ("attn", "mean", "ablate L{}.attn=mean"), ("layers", "zero", "ablate L{}")]
)
def test_other_sites_change_the_logit_as_their_interventions_do(what: str, how: str, spec: str) -> None:
    session = begin()
    session.step()
    *_, last = session.sweep_sites(0, what, how)  # type: ignore[arg-type]
    assert last.changes.shape == (session.info.layers, 1)
    assert (last.what, last.how, last.done) == (what, how, last.total)
    for layer in range(session.info.layers):
        if not last.known[layer, 0]:
            continue
        step = session.intervene((spec.format(layer),))
        assert step is not None
        assert step.before is not None
        change = logit_of(step.candidates, last.token_id) - logit_of(step.before.candidates, last.token_id)
        assert last.changes[layer, 0] == pytest.approx(change, abs=1e-4)
