"""Looking back: an earlier token with measures that were not wanted then is as if they had been, and nothing else changes."""

from __future__ import annotations

import random
from dataclasses import replace
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

from openmav.engine.backfill import Backfill
from openmav.engine.handlers import want
from openmav.engine.reporter import Reporter
from openmav.generation.opening import open_session
from openmav.protocol.commands import Want
from openmav.record import lacking
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import Sampling
from unit.test_branches import KINDS, begin, identical

__all__ = ["begin"]  # the fixture
DEEP = (*CORE_MEASURES, "logit_lens", "attention_rows", "attribution", "neurons", "neuron_tokens", "sampling_stages", "sink_share")
DRAWN = Sampling(temperature=0.9, top_k=30, repetition_penalty=1.2, seed=5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_numbers_of_a_run_that_wanted_them_from_the_start(begin, kind: str) -> None:
    whole, bare = begin(kind, measures=DEEP, sampling=DRAWN), begin(kind, measures=("mlp_norm",), sampling=DRAWN)
    expected = [whole.step() for _ in range(80)]
    before = [bare.step() for _ in range(80)]
    bare.sampling = Sampling(temperature=0.1)  # as it is set now is not as it was then
    bare.want(DEEP)
    places = [*random.Random(1).sample(range(80), 25), 0, 79]
    for index in dict.fromkeys(places):
        again = bare.look_back(index)
        assert again is bare.steps[index]
        assert again.values.keys() == expected[index].values.keys()
        assert identical(again, expected[index])
        assert identical(again, before[index])
        assert again.sampling == before[index].sampling
        assert bare.look_back(index) is None
    bare.sampling = DRAWN
    after = [(bare.step(), whole.step()) for _ in range(5)]
    assert all(identical(a, b) for a, b in after)


def test_it_follows_the_branch_in_force(begin) -> None:
    session = begin(measures=("mlp_norm",))
    for _ in range(20):
        session.step()
    session.back(15)
    session.force(7)
    for _ in range(10):
        session.step()
    session.want(DEEP)
    other = begin(measures=DEEP)
    expected = [other.force(step.token_id) for step in session.steps]
    for index in (12, 3, 0, 9):
        assert identical(session.look_back(index), expected[index])
    session.switch("main")
    assert "logit_lens" in session.look_back(19).values
    assert "logit_lens" not in session.branches["branch 1"].steps[11].values


def test_what_the_untouched_model_made_is_not_looked_at_with_a_touched_one(begin) -> None:
    session = begin(measures=("mlp_norm",))
    for _ in range(6):
        session.step()
    session.intervene(["ablate L1.mlp"])
    session.step()
    session.want(DEEP)
    assert session.look_back(3) is None
    touched = session.look_back(6)
    assert float(touched.values["mlp_norm"][1]) == 0.0
    assert touched.before is not None


def test_after_a_failure_the_cache_is_whole(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    session, other = begin(measures=("mlp_norm",)), begin(measures=("mlp_norm",))
    for _ in range(10):
        session.step(), other.step()
    session.want(DEEP)
    with monkeypatch.context() as broken:
        broken.setattr(type(session.backend), "decode_one_token", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.look_back(4)
    assert "logit_lens" not in session.steps[4].values
    assert identical(session.step(), other.step())
    assert "logit_lens" in session.look_back(4).values


def test_what_a_step_lacks(begin) -> None:
    session = begin(measures=("mlp_norm", "neuron_tokens"))
    session.want(("mlp_norm", "neuron_tokens"), 1)
    step = session.step()
    assert lacking(step, ["mlp_norm", "logit_lens"], None, {}) == {"logit_lens"}
    assert lacking(step, ["neuron_tokens"], 1, {}) == set()
    assert lacking(step, ["neuron_tokens"], 0, {}) == {"neuron_tokens"}
    assert lacking(step, ["neuron_tokens"], -1, {}) == set()
    assert lacking(step, ["neuron_tokens"], 0, {"neuron_tokens": {0: "no neurons"}}) == set()
    gone = replace(step, values={}, dropped=("mlp_norm",))
    assert lacking(gone, ["mlp_norm"], None, {}) == {"mlp_norm"}
    assert lacking(gone, ["mlp_norm"], None, {}, dropped=False) == set()


def test_what_was_dropped_comes_again(begin) -> None:
    session = begin(measures=("attention_rows",))
    steps = [session.step() for _ in range(5)]
    session.steps[2] = replace(steps[2], values={}, dropped=("attention_rows",))
    assert session.look_back(2, dropped=False) is None
    again = session.look_back(2)
    assert again.dropped == ()
    assert np.array_equal(again.values["attention_rows"], steps[2].values["attention_rows"])


def test_more_candidates_are_kept_when_they_are_asked_for_and_are_the_models() -> None:
    session = open_session(Settings("toy?endless=1", "Hi", backend="toy", max_new_tokens=6))
    session.step()
    session.step()
    session.want(CORE_MEASURES, candidates=200)
    newest = session.look_again() or session.retake()
    earlier, new = session.look_back(0), session.step()
    for step in (earlier, newest, new):
        assert step is not None
        assert len(step.candidates) in (200, 201)
        assert len(set(step.candidates.token_ids.tolist())) == len(step.candidates)
        assert (np.diff(step.candidates.probs[:200]) <= 0).all()
        mass = np.exp(step.candidates.logits - step.candidates.logits.max())
        assert step.candidates.probs / step.candidates.probs.max() == pytest.approx(mass, rel=1e-5)
    assert session.look_back(0) is None, "nothing is lacking any more"
    session.want(CORE_MEASURES)
    assert len(session.step().candidates) in (20, 21)
    assert session.look_back(0) is None, "what is there stays"


def test_the_app_knows_which_token_is_computed_again_for_as_long_as_it_is(begin) -> None:
    session = begin(measures=("mlp_norm",))
    for _ in range(3):
        session.step()
    here, app = Pipe()
    reporter = Reporter(here, Settings())
    inbox = SimpleNamespace(receive=lambda: None, holds=lambda _kind: False)
    engine = SimpleNamespace(reporter=reporter, backfill=Backfill(reporter), inbox=inbox, idle=lambda _session: False)
    want(engine, session, Want(frozenset({"logit_lens"}), None, 1))  # type: ignore[arg-type]
    events = [app.recv() for _ in range(3)]
    assert [events[0].changes, events[2].changes] == [{"recomputing": 1}, {"recomputing": None}]
    assert events[1].step.index == 1
    assert "logit_lens" in events[1].step.values
