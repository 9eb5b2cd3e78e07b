"""A session that is compared as it goes: the numbers of `mav compare`, after an undo and another prompt too, and in a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openmav.analysis.compare import Lockstep
from openmav.generation.opening import open_pair, open_session
from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record.comparison import COMPARISON, MEASURES, Comparison, divergence_of, first_parting
from openmav.recording.facts import read_settings
from openmav.recording.recorder import Recorder
from openmav.recording.replay import ReplaySource
from openmav.settings import Settings

A = Settings(model="toy", backend="toy", prompt="Hi", max_new_tokens=5, measures=MEASURES)
B = replace(A, interventions=("ablate L2.mlp",))


def compared_session(**changes: object):
    return open_session(replace(A, compared=B, **changes))  # type: ignore[arg-type]


def entries(step):
    return {name: array for name, array in step.values.items() if name.startswith(f"{COMPARISON}.")}


def test_a_session_that_is_compared_has_the_numbers_of_the_lockstep() -> None:
    pair = Lockstep(*open_pair(A, B))
    tokens = list(pair)
    with compared_session(measures=()) as session:
        steps = list(session)
        for one, step, kept in zip(tokens, steps, pair.a.steps, strict=True):
            assert step.token_id == one.a.token_id
            assert divergence_of(step) == pytest.approx(one.kl, rel=1e-6)
            assert entries(step).keys() == entries(kept).keys()
            assert len(entries(step)) == 12
            for name, array in entries(step).items():
                np.testing.assert_array_equal(array, kept.values[name], err_msg=name)
            share = step.values[f"{COMPARISON}.share"]
            np.testing.assert_allclose(share[2], one.layers["residual"].share, rtol=1e-6)
            assert step.values[f"{COMPARISON}.token_ids"][0] == one.b.candidates.token_ids[0]
            assert step.values[f"{COMPARISON}.logprob"][0] == pytest.approx(one.b.logprob, rel=1e-6)
            assert all(int(token_id) in step.pieces for token_id in step.values[f"{COMPARISON}.token_ids"])
        assert first_parting(steps[-1]) == (0, 2, "MLP")
    pair.a.close()
    pair.b.close()


def test_after_an_undo_and_on_another_prompt_both_read_the_same() -> None:
    with compared_session() as session:
        once = [entries(step) for step in session]
        session.back(3)
        for at in range(2, 5):
            step = session.step()
            for name, array in entries(step).items():
                np.testing.assert_array_equal(array, once[at][name], err_msg=name)
        session.back(2)
        other = int(session.steps[-1].candidates.token_ids[3])
        assert divergence_of(session.force(other)) is not None
        session.edit_prompt("another text")
        there = session.step()
    with open_session(replace(A, prompt="another text", compared=replace(B, prompt="another text"))) as alone:
        for name, array in entries(alone.step()).items():
            np.testing.assert_array_equal(array, there.values[name], err_msg=name)


def test_a_recording_has_the_comparison_and_its_settings(tmp_path: Path) -> None:
    with compared_session() as session:
        list(session)
        recorder = Recorder(tmp_path / "run.mav", replace(A, compared=B))
        recorder.update(Snapshot(steps=session.steps).with_state(session.describe(RunState(status="ended", info=session.info))))
        recorder.close()
        source = ReplaySource(tmp_path / "run.mav")
        now = source.snapshot()
        assert now.comparison == session.comparison
        assert now.comparison is not None
        assert "ablate L2.mlp" in now.comparison.b
        for step, read in zip(session.steps, now.steps, strict=True):
            for name, array in entries(step).items():
                np.testing.assert_array_equal(array, read.values[name], err_msg=name)
        again = read_settings(source.recording.meta["settings"])
        source.close()
    assert again.compared == B


@pytest.mark.parametrize("content", [{}, [], {"b": 1, "prompt": "", "threshold": 1, "why_no_layers": ""}, {"b": "x"}])
def test_what_is_no_comparison_is_refused(content: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Comparison.read(content)
