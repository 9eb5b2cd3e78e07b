"""JSON lines: what is written is the Step's own numbers, and what docs/json.md says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from openmav.apps.text.jsonl import JsonLines
from openmav.backends.toy import Toy
from openmav.generation.session import Session
from openmav.record import Step, freeze_values
from openmav.record.lines import header, step_line
from openmav.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "json.schema.json").read_text(encoding="utf-8"))
check_line: Callable[[Any], Any] = fastjsonschema.compile(SCHEMA)


def session_of(model: str = "toy", switches: dict[str, float] | None = None, **settings: Any) -> Session:
    return Session(Toy(model, switches or {}), Settings(model=model, prompt="Hi", backend="toy", **settings))


def lines_of(session: Session) -> list[dict[str, Any]]:
    written: list[str] = []
    face = JsonLines(written.append)
    face.begin(session.info, session.prompt, session.settings)
    for step in session:
        face.step(step)
    assert session.reason is not None
    face.end(session.reason, session.steps, 1.5)
    assert all(line.endswith("\n") and line.count("\n") == 1 and line.isascii() for line in written)
    return [json.loads(line) for line in written]


@pytest.mark.parametrize("switches", [{}, {"bare": 1}, {"nan": 2}])
def test_every_line_is_what_the_schema_says(switches: dict[str, float]) -> None:
    lines = lines_of(session_of(switches=switches, max_new_tokens=60))
    for line in lines:
        check_line(line)
    assert [line["type"] for line in lines] == ["header", *["step"] * (len(lines) - 2), "end"]
    assert lines[-1] == {"type": "end", "reason": "eos", "tokens": len(lines) - 2, "seconds": 1.5}


def test_the_schema_rejects_what_it_does_not_name() -> None:
    line = lines_of(session_of(max_new_tokens=1))[1]
    check_line(line)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check_line({**line, "suprise": 1})
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check_line({key: value for key, value in line.items() if key != "entropy"})


def test_numbers_are_the_steps_own_to_the_last_bit() -> None:
    session = session_of(max_new_tokens=5)
    lines = lines_of(session)[1:-1]
    for line, step in zip(lines, session.steps):
        assert (line["index"], line["token_id"], line["token"], line["text"]) == (step.index, step.token_id, step.token, step.text)
        assert (line["logprob"], line["entropy"]) == (step.logprob, step.entropy)
        for name in ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy"):
            written = np.array([layer[name] for layer in line["layers"]], dtype=np.float32)
            assert written.tobytes() == step.values[name].tobytes()
        assert np.float32(line["measures"]["distribution"]).tobytes() == step.values["distribution"].tobytes()
        for key, column in (
            ("logit", step.candidates.logits),
            ("prob", step.candidates.probs),
            ("sampled_prob", step.candidates.sampled_probs),
        ):
            assert np.float32([c[key] for c in line["candidates"]]).tobytes() == column.tobytes()
        assert [c["token"] for c in line["candidates"]] == list(step.candidates.tokens)
        assert line["timing"]["total"] == pytest.approx(step.timing.model + step.timing.capture + step.timing.sample)


def test_a_layer_without_a_value_has_null_and_the_header_says_why() -> None:
    head, line, _ = lines_of(session_of(switches={"bare": 1}, max_new_tokens=1))
    assert line["layers"][1] == {
        "index": 1,
        "mlp_norm": None,
        "attention_norm": None,
        "residual_norm": line["layers"][1]["residual_norm"],
        "attention_entropy": None,
    }
    assert line["layers"][1]["residual_norm"] > 0
    assert line["layers"][0]["attention_entropy"] is not None
    assert head["model"]["missing"]["mlp_norm"] == {"1": "switched off"}
    assert line["nonfinite"] == []


def test_the_models_own_nan_is_null_and_named() -> None:
    lines = lines_of(session_of(switches={"nan": 1}, max_new_tokens=2))
    assert lines[1]["nonfinite"] == []
    assert lines[2]["entropy"] is None
    assert lines[2]["layers"][3]["residual_norm"] is None
    assert {"logits", "residual_norm"} <= set(lines[2]["nonfinite"])


def a_step() -> tuple[Step, Session]:
    session = session_of(max_new_tokens=1)
    return session.step(), session


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinity_and_nan_in_one_head_leave_the_others(value: float) -> None:
    step, session = a_step()
    entropies = step.values["attention_entropy"].copy()
    entropies[2, 1] = value
    line = step_line(replace(step, values=freeze_values({**step.values, "attention_entropy": entropies})), session.info)
    heads = line["layers"][2]["attention_entropy"]
    assert heads[1] is None
    assert heads[0] == float(entropies[2, 0])
    assert line["nonfinite"] == ["attention_entropy"]
    check_line(json.loads(json.dumps(line, allow_nan=False)))


def test_an_extra_measure_stands_under_measures_with_its_shape() -> None:
    step, session = a_step()
    extra = np.arange(8, dtype=np.float32).reshape(4, 2)
    line = step_line(replace(step, values=freeze_values({**step.values, "lens": extra})), session.info)
    assert line["measures"]["lens"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    check_line(line)


def test_the_header_tells_the_settings() -> None:
    session = session_of(aggregation="max_abs")
    head = header(session.info, session.prompt, session.settings)
    assert head["prompt"] == {"text": "Hi", "token_ids": [73, 106], "tokens": ["H", "i"]}
    assert head["aggregation"] == "max_abs"
    assert (head["model"]["layers"], head["model"]["heads"], head["model"]["vocab"]) == (4, 4, session.info.vocab)


def test_the_documentation_names_every_field() -> None:
    text = (DOCS / "json.md").read_text(encoding="utf-8")
    named = {part for code in re.findall(r"`([\w.\[\]]+)`", text) for part in re.split(r"[.\[\]]+", code) if part}
    for kind in ("header", "step", "end"):
        fields = set(_fields(SCHEMA["definitions"][kind]))
        assert fields <= named, f"docs/json.md does not name {sorted(fields - named)}"


def _fields(schema: Any) -> list[str]:
    found: list[str] = []
    for name, inner in schema.get("properties", {}).items():
        found += [name, *_fields(inner), *_fields(inner.get("items", {}))]
    return found


def test_a_touched_run_says_what_the_untouched_model_says() -> None:
    lines = lines_of(session_of(max_new_tokens=3, interventions=("ablate L1.mlp", "amplify L2.attn=0.5")))
    plain = lines_of(session_of(max_new_tokens=1))
    assert lines[0]["interventions"] == ["ablate L1.mlp", "amplify L2.attn=0.5"] == lines[1]["interventions"]
    before = lines[1]["before"]
    assert before["candidates"][:20] == plain[1]["candidates"][:20]
    assert before["layers"] == plain[1]["layers"] != lines[1]["layers"]
    assert "before" not in plain[1]
    for line in lines:
        check_line(line)
