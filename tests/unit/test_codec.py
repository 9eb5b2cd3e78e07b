"""What is written of a Step: one list of its fields, and all of it comes back."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from fakes import make_info, make_step, with_values
from openmav.record import Baseline, Step, codec
from openmav.record.codec import BASELINE, STEP, Entry, decode_step, encode_step, plain
from openmav.record.lines import step_line
from openmav.settings.sampling import Sampling
from unit.test_jsonl import SCHEMA


def full_step() -> Step:
    """Something in every field."""
    step = with_values(make_step(3), **{"router.ids": np.array([[2, -1]]), "attention_rows": np.ones((2, 1, 3), np.float32)})
    baseline = Baseline(step.candidates, -1.5, 0.25, {"mlp_norm": np.array([1.0, np.nan], np.float32)}, {7: " x"})
    sampling = Sampling(temperature=0.5, stages=(("min length", 2.0),))
    return replace(
        step,
        special=True,
        forced=True,
        pieces={4: "é"},
        dropped=("logit_lens",),
        sampling=sampling,
        interventions=("ablate L0.mlp",),
        before=baseline,
        rank=2,
    )


def same(a: Step, b: Step) -> bool:
    return plain(encode_step(a)) == plain(encode_step(b)) and all(
        a.values[name].dtype == b.values[name].dtype and not b.values[name].flags.writeable for name in a.values
    )


def test_the_lists_name_every_field() -> None:
    assert {entry.name for entry in STEP} == {one.name for one in fields(Step)}
    assert {entry.name for entry in BASELINE} == {one.name for one in fields(Baseline)}


def test_every_field_is_something_else_than_its_default_here() -> None:
    """So that one that is forgotten would show below."""
    step, bare = plain(encode_step(full_step())), plain(encode_step(make_step(3)))
    for name in ("values", "pieces", "interventions", "before", "special", "forced", "dropped", "sampling", "rank"):
        assert step[name] != bare[name]


@pytest.mark.parametrize("through_json", [False, True])
def test_a_step_comes_back(through_json: bool) -> None:
    step = full_step()
    content = encode_step(step)
    if through_json:
        content = json.loads(json.dumps(plain(content), allow_nan=False))
    again = decode_step(content)
    assert same(step, again)
    assert again.timing == step.timing
    assert again.sampling == step.sampling
    assert again.before is not None
    assert np.isnan(again.before.values["mlp_norm"][1])


def test_what_an_older_or_newer_version_wrote_is_read() -> None:
    content = encode_step(full_step())
    del content["forced"]
    assert decode_step({**content, "of_the_future": 1}).forced is False


def test_another_field_is_one_line_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON lines have it then; the schema of the documents names it, or refuses it."""
    step = make_step(0)
    object.__setattr__(step, "mood", float("nan"))
    monkeypatch.setattr(codec, "STEP", (*STEP, Entry("mood")))
    assert plain(encode_step(step))["mood"] is None
    monkeypatch.setattr("openmav.record.lines.LINE", codec.STEP)
    assert "mood" in step_line(step, make_info())


def test_the_schema_names_the_fields_that_lines_have() -> None:
    """Values stand by layer and by measure there, two entries are computed from the others, and an export has what lines leave out."""
    known = set(SCHEMA["definitions"]["step"]["properties"])
    names = {entry.name for entry in STEP if entry.in_lines} - {"values"}
    left_out = {entry.name for entry in STEP if not entry.in_lines} | {"branch", "arrays", "arrays_before", "infinite"}
    assert known == names | {"type", "layers", "measures", "nonfinite"} | left_out


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), np.float32("nan"), np.array([np.nan]), {"a": (float("-inf"),)}, [[np.float64("nan")]]]
)
def test_nan_and_infinity_are_null(value: object) -> None:
    assert "null" in json.dumps(plain(value), allow_nan=False)
