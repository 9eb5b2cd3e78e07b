"""Input attribution from the session, the engine and the command line."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest

import warm
from openmav.cli.main import main
from openmav.engine import EngineSource
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.protocol.commands import Attribute
from openmav.settings import Settings


@pytest.fixture
def toy() -> Session:
    session = open_session(Settings("toy", "Hello you", backend="toy", max_new_tokens=6, interventions=()))
    for _ in range(4):
        session.step()
    return session


def test_any_token_can_be_asked_for_and_the_text_is_the_one_before_it(toy: Session) -> None:
    for index in range(5):
        found = toy.explain("occlusion", index)
        assert found.position == len(toy.prompt.token_ids) + index == len(found.scores)
        assert found.token_ids == tuple(toy.token_ids[: found.position])
        assert "".join(found.tokens) == "Hello you" + "".join(step.text for step in toy.steps[:index])
        if index < 4:
            assert found.target_id == toy.steps[index].token_id
            assert found.drift < 1e-6
    assert toy.explain("gradient").index == 3, "the newest one where none is named"


def test_the_toys_occlusion_equals_plain_runs(toy: Session) -> None:
    found = toy.explain("occlusion", 2, minus=40)
    ids, backend = list(found.token_ids), toy.backend
    whole = backend.prefill(ids, frozenset()).logits
    for at, score in enumerate(found.scores):
        logits = backend.prefill([*ids[:at], 0, *ids[at + 1 :]], frozenset()).logits
        change = (whole - logits)[found.target_id] - (whole - logits)[40]
        assert float(score) == pytest.approx(float(change), abs=1e-4)


def test_the_toys_integrated_gradients_are_complete(toy: Session) -> None:
    assert toy.explain("integrated", 3).error < 0.01


def test_asking_changes_no_token_after_it(toy: Session) -> None:
    other = open_session(toy.settings)
    plain = [step.candidates.logits.tobytes() for step in other]
    toy.explain("gradient")
    assert [step.candidates.logits.tobytes() for step in (*toy.steps, *toy)] == plain


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"method": "magic"}, "unknown attribution method"),
        ({"method": "gradient", "index": 9}, "there is no token 9 to explain"),
        ({"method": "gradient", "token_id": 10**6}, "there is no token 1000000"),
        ({"method": "gradient", "token_id": 3, "minus": 3}, "minus itself"),
    ],
)
def test_what_cannot_be_asked_is_one_line(toy: Session, asked: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        toy.explain(**asked)


def test_with_interventions_it_is_of_the_untouched_model(toy: Session) -> None:
    before = toy.explain("occlusion", 3)
    toy.intervene(["ablate L1.attn"])
    after = toy.explain("occlusion", 3)
    assert after.of_baseline
    assert not before.of_baseline
    assert np.array_equal(before.scores, after.scores)
    assert after.drift < 1e-6


@pytest.mark.slow
def test_the_engine_answers_and_is_stopped_by_another_command() -> None:
    source = EngineSource(Settings("demo", "It is a truth universally acknowledged", backend="transformers", max_new_tokens=3, threads=1))
    try:
        _until(source, lambda now: now.status == "ended")
        source.send(Attribute("occlusion", 1))
        found = _until(source, lambda now: now.attribution is not None).attribution
        assert found is not None
        assert (found.index, found.target_id) == (1, source.snapshot().steps[1].token_id)
        told: list[dict] = []
        take = source._take
        source._take = lambda event: (told.append(getattr(event, "changes", {})), take(event))[1]  # type: ignore[method-assign]
        source.send(Attribute("integrated", 2))
        _until(source, lambda now: any(changes.get("progress") for changes in told))  # under way: before that the two would be one
        source.send(Attribute("gradient", 0))
        now = _until(source, lambda now: now.attribution is not found)
        assert now.attribution is not None
        assert now.attribution.method == "gradient"
        assert any("stopped" in changes.get("notice", "") for changes in told)
        assert len(now.steps) == 3
    finally:
        source.close()


def _until(source: EngineSource, holds):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = source.snapshot()
        if holds(now):
            return now
        assert now.status != "failed", now.error
        time.sleep(0.01)
    raise AssertionError(source.snapshot())


def test_the_command_says_it_as_json() -> None:
    run = _run("--prompt", "It is a truth", "--json", "--method", "occlusion")
    said = json.loads(run.stdout)
    session = open_session(Settings(prompt="It is a truth", backend="transformers"))
    session.step()
    found = session.explain("occlusion", 0)
    assert [token["token"] for token in said["tokens"]] == list(found.tokens)
    assert [token["score"] for token in said["tokens"]] == pytest.approx(found.scores.tolist(), abs=1e-4)
    assert said["total"] is None
    assert said["sum"] == pytest.approx(found.sum, abs=1e-3)


def test_the_command_says_it_as_text() -> None:
    run = _run("--prompt", "It is a truth", "--target", " that", "--minus", " of")
    rows = run.stdout.splitlines()
    assert rows[0] == "Input attribution to ·that minus ·of · gradient × input, logits"
    assert rows[1] == "It is a truth"
    assert "\x1b" not in run.stdout
    assert (run.returncode, run.stderr) == (0, "")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("attribute", *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", " of them all"], "tokens for this model"),
        (["--method", "magic"], "'magic' is not one of"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str) -> None:
    run = _run(*arguments)
    assert run.returncode == 2
    assert says in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_help_needs_no_model() -> None:
    assert main(["attribute", "--help"]) == 0
