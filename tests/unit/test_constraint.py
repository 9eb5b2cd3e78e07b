"""Constrained text: what the masks let through against plain string arithmetic, and whole texts of several models."""

from __future__ import annotations

import datetime
import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import warm
from openmav.backends.base import Backend, TokenBytes
from openmav.backends.transformers import wrap
from openmav.errors import UsageError
from openmav.generation.constraint_mask import TokenMask
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.record import SAMPLING_STAGES
from openmav.settings import Settings
from openmav.settings.constraint import Constraint
from openmav.settings.sampling import Sampling

WORDS = [b"", b"a", b"b", b"c", b"ab", b"bc", b"abc", b"ca", b"cab", b" a", b"aa", "é".encode(), b"\xc3", b"\xa9", b"\xa9a"]
SMALL = st.text("abc é", min_size=1, max_size=4)
texts = st.lists(st.integers(1, len(WORDS) - 1), max_size=6)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def allowed_by(constraint: Constraint, ids: list[int]) -> set[int]:
    return set(torch.nonzero(TokenMask(TokenBytes((WORDS,)), frozenset({0}), len(WORDS), constraint).allowed(ids)).ravel().tolist())


# ---- masks ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(SMALL, min_size=1, max_size=3), texts)
def test_a_token_is_banned_where_it_would_complete_a_banned_text_and_only_there(banned: list[str], ids: list[int]) -> None:
    before = b"".join(WORDS[i] for i in ids)
    words = [text.encode() for text in banned]
    if any(word in before for word in words):
        return  # no text under the constraint gets there
    expected = {i for i, token in enumerate(WORDS) if not any(word in before + token for word in words)}
    assert allowed_by(Constraint(ban=tuple(banned)), ids) == expected


@settings(max_examples=200)
@given(st.lists(SMALL, min_size=1, max_size=2), texts)
def test_the_end_waits_for_all_required_texts(required: list[str], ids: list[int]) -> None:
    text = b"".join(WORDS[i] for i in ids)
    has_all = all(wanted.encode() in text for wanted in required)
    assert allowed_by(Constraint(require=tuple(required)), ids) == set(range(len(WORDS))) - (set() if has_all else {0})


@settings(max_examples=200)
@given(st.lists(st.text("abcé", min_size=1, max_size=8), min_size=1, max_size=5, unique=True), st.data())
def test_a_pattern_of_words_lets_through_the_beginnings_of_these_words(words: list[str], data: st.DataObject) -> None:
    """Against prefixes of a finite language; the walk goes back and on again over one and the same mask."""
    pytest.importorskip("llguidance")
    mask = TokenMask(TokenBytes((WORDS,)), frozenset({0}), len(WORDS), Constraint(regex="|".join(words)))
    whole, ids = [word.encode() for word in words], []
    for _ in range(10):
        before = b"".join(WORDS[i] for i in ids)
        expected = {i for i, token in enumerate(WORDS) if token and any(word.startswith(before + token) for word in whole)}
        expected |= {0} if before in whole else set()
        found = set(torch.nonzero(mask.allowed(ids)).ravel().tolist())
        assert found == expected
        assert (mask.ended(ids) == "complete") == (found == {0})
        on = sorted(found - {0})
        ids = [*ids, data.draw(st.sampled_from(on))] if on and data.draw(st.booleans()) else ids[: data.draw(st.integers(0, len(ids)))]


# ---- whole texts ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def loaded(model: str, backend: str) -> Backend:
    return open_session(Settings(model, "a", backend=backend)).backend


def run(model: str = "demo", prompt: str = "It is a truth", **changes: object) -> Session:
    backend = "toy" if model.startswith("toy") else "transformers"
    settings = Settings(model, prompt, backend=backend, **{"max_new_tokens": 40, **changes})  # type: ignore[arg-type]
    session = Session(loaded(model, backend), settings)
    list(session)
    return session


PATTERNS = [r"[a-z]{3,8} [0-9]{2}", r"(yes|no|perhaps), [A-Z][a-z]{1,8}\.", r"(ab){2,5}c?", r"é[à-ü]{3}", r"\d{4}-\d{2}-\d{2}"]
SAMPLINGS = [Sampling(), Sampling(temperature=1.5, seed=3), Sampling(temperature=1.0, top_k=3, top_p=0.9, repetition_penalty=1.3, seed=5)]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda s: s.describe())
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("model", ["demo", "toy"])
def test_a_text_matches_its_pattern(model: str, pattern: str, sampling: Sampling) -> None:
    pytest.importorskip("llguidance")
    session = run(model, sampling=sampling, constraint=Constraint(regex=pattern))
    text = "".join(step.text for step in session.steps if not step.special)
    assert re.fullmatch(pattern, text), text
    assert session.reason in ("complete", "eos")


def test_a_length_may_cut_it() -> None:
    pytest.importorskip("llguidance")
    session = run(constraint=Constraint(regex="(abc ){50}"), max_new_tokens=5)
    assert session.reason == "length"
    assert ("abc " * 50).startswith(session.text)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda s: s.describe())
def test_json_is_what_its_schema_says(sampling: Sampling) -> None:
    pytest.importorskip("llguidance")
    session = run(sampling=sampling, constraint=Constraint(json_schema=json.dumps(SCHEMA)), max_new_tokens=80)
    fastjsonschema.compile(SCHEMA)(json.loads(session.text))
    assert session.reason == "complete"


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


@pytest.mark.parametrize(
    "schema", [True, {}, {"type": "string", "format": "date"}, {"const": 9007199254740991}, {"enum": ["Zürich", "東京"]}]
)
def test_json_of_any_schema_is_what_it_says(schema: Any) -> None:
    pytest.importorskip("llguidance")
    asked = Constraint(json_schema=json.dumps(schema))
    ended = 0
    for seed in range(4):
        session = run(constraint=asked, sampling=Sampling(temperature=1.0, top_k=0, seed=seed), max_new_tokens=60)
        if session.reason in ("complete", "eos"):
            ended += 1
            text = "".join(step.text for step in session.steps if not step.special)
            fastjsonschema.compile(schema, formats={"date": _is_date})(json.loads(text))
    assert ended


@pytest.mark.real
def test_the_real_model_keeps_to_a_schema_and_a_pattern(real_folder: Path) -> None:
    pytest.importorskip("llguidance")
    said = run(str(real_folder), constraint=Constraint(json_schema=json.dumps(SCHEMA)), max_new_tokens=60).text
    fastjsonschema.compile(SCHEMA)(json.loads(said))
    pattern = r" [A-Z][a-z]{2,9}"
    assert re.fullmatch(pattern, run(str(real_folder), "The capital of France is", constraint=Constraint(regex=pattern)).text)


@pytest.mark.parametrize("model", ["demo", "toy?endless=1"])
@pytest.mark.parametrize("seed", range(3))
def test_banned_words_never_appear(model: str, seed: int) -> None:
    sampling = Sampling(temperature=1.2, top_k=0, seed=seed)
    plain = run(model, sampling=sampling, max_new_tokens=120).text
    parts = {plain[at : at + 3] for at in range(0, 60, 7)} | {plain[4:5]}
    banned = tuple(sorted(part for part in parts if "\ufffd" not in part))
    assert len(banned) > 3
    found = run(model, sampling=sampling, max_new_tokens=120, constraint=Constraint(ban=banned))
    assert [text for text in banned if text in found.text] == []
    assert len(found.steps) == 120 or found.reason == "eos"


def test_the_model_cannot_end_before_what_is_required() -> None:
    """The toy recites its words and ends; with a required text that it never says, it goes on."""
    assert run("toy", "Hi", max_new_tokens=300).reason == "eos"
    held = run("toy", "Hi", max_new_tokens=60, constraint=Constraint(require=("never said",)))
    assert held.reason == "length"
    assert run("toy", "Hi", max_new_tokens=60, constraint=Constraint(require=(" truth",))).reason == "eos"


# ---- the session -----------------------------------------------------------------------------------------------------------


def test_the_numbers_stay_the_models_own_and_the_mask_shows_in_the_stages() -> None:
    pytest.importorskip("llguidance")
    pattern = r" [a-z]+"
    common = {"measures": ("sampling_stages",), "max_new_tokens": 1}
    plain, held = run(**common).steps[0], run(**common, constraint=Constraint(regex=pattern)).steps[0]  # type: ignore[arg-type]
    assert plain.candidates.logits[:20].tolist() == held.candidates.logits[:20].tolist()
    assert plain.entropy == held.entropy
    session = run(max_new_tokens=1)
    probs = torch.softmax(session.backend.prefill(session.prompt.token_ids, frozenset()).logits.double(), -1)
    (words,) = session.backend.spelling().after  # type: ignore[attr-defined]
    fits = [bool(re.fullmatch(rb" ?| [a-z]+", word)) and bool(word) for word in words]
    row = held.values["sampling_stages"][SAMPLING_STAGES.index("constraint")]
    assert row[0] == 1
    assert row[1] == sum(fits)
    assert float(row[2]) == pytest.approx(float(probs[torch.tensor(fits)].sum()), abs=1e-5)
    for token_id, sampled in zip(held.candidates.token_ids.tolist(), held.candidates.sampled_probs.tolist()):
        assert fits[token_id] or sampled == 0
    assert plain.values["sampling_stages"][SAMPLING_STAGES.index("constraint")][0] == 0


def test_back_force_and_branches_recompute_it() -> None:
    pytest.importorskip("llguidance")
    pattern = r"(cat|dog|cow)( sat){3}\."
    session = run(constraint=Constraint(regex=pattern))
    first = [step.token_id for step in session.steps]
    session.back(len(first))
    assert [step.token_id for step in session] == first
    session.back(len(first))
    allowed = session._stopping.allowed([])
    assert allowed is not None
    other = next(i for i in torch.nonzero(allowed).ravel().tolist() if i != first[0])
    session.force(other)
    assert re.fullmatch(pattern, "".join(step.text for step in (*session.steps, *session)))
    session.switch("main")
    assert [step.token_id for step in session.steps] == first
    session.back(2)
    assert [step.token_id for step in session.forward(50)] == first[-2:]


def test_a_token_that_is_not_allowed_is_refused_in_one_line() -> None:
    session = run(constraint=Constraint(ban=("cat",)), max_new_tokens=3)
    session.back(2)
    with pytest.raises(UsageError, match="the constraint \\(1 banned\\) does not allow"):
        list(session.type(" cat"))
    assert "cat" not in session.text
    session.step()


def test_where_nothing_is_allowed_the_text_is_stuck() -> None:
    pytest.importorskip("llguidance")
    session = run(constraint=Constraint(regex="abcd", ban=("bc",)))
    assert session.reason == "stuck"
    assert session.text == "ab"


def test_ids_and_bytes_of_a_tiny_llama(tiny_llama, id_tokenizer) -> None:
    pytest.importorskip("llguidance")
    given_ = Settings(prompt="hello", constraint=Constraint(regex="[a-f]{6}"), max_new_tokens=20)
    session = Session(wrap(tiny_llama, id_tokenizer, "tiny"), given_)
    list(session)
    assert re.fullmatch("[a-f]{6}", session.text)
    assert session.reason == "complete", "this model has no token that ends a text"
    session.close()


# ---- the command -----------------------------------------------------------------------------------------------------------


def test_the_flags_reach_the_text(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    made = _mav("--json-schema", str(tmp_path / "s.json"), "--max-new-tokens", "80")
    fastjsonschema.compile(SCHEMA)(json.loads(made.stdout))
    wrong = _mav("--regex", "(a")
    assert (wrong.returncode, wrong.stderr) == (2, "mav: the regular expression cannot be used: unclosed group\n")
    gone = _mav("--json-schema", str(tmp_path / "none.json"))
    assert gone.stderr.startswith("mav: cannot read the schema file")
    assert gone.returncode == 2


def _mav(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("--plain", *arguments)
