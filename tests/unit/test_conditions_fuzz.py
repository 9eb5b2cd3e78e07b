"""Texts of all kinds at the language of breakpoints: only its own error comes out, and what is written again means the same."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openmav.conditions import ConditionError, known_names, parse

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))
import fuzz_conditions  # noqa: E402

MOMENTS = fuzz_conditions.moments()
words = st.lists(st.sampled_from([*fuzz_conditions.PIECES, *known_names()]), max_size=20).map(" ".join)
meant = st.builds(
    lambda seed, kind, depth: fuzz_conditions.made(random.Random(seed), kind, depth),
    st.integers(0, 2**32),
    st.sampled_from(["truth", "number", "text"]),
    st.integers(0, 5),
)


@settings(max_examples=300)
@given(st.text(max_size=600) | words)
@example("not " * 125)
@example("((((" * 125)
@example("previous(" * 55)
@example("1" + "+1" * 249)
@example("1" * 500)
@example("max(" + "1," * 200 + "1)")
def test_no_text_does_harm(text: str) -> None:
    fuzz_conditions.understood(text, MOMENTS)


@settings(max_examples=300)
@given(meant)
def test_what_the_grammar_makes_is_understood_and_reads_back_as_the_same(text: str) -> None:
    try:
        assert fuzz_conditions.understood(text, MOMENTS)
    except AssertionError:
        with pytest.raises(ConditionError, match=r"at most 500|more than 32"):
            parse(text)


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_can_be_said_in_quotes(text: str) -> None:
    from openmav.conditions._syntax import quoted

    assert parse(quoted(text)).tree.said == text  # type: ignore[attr-defined]


@pytest.mark.fuzz
def test_a_hundred_thousand_texts_bring_out_only_its_own_error() -> None:
    command = [sys.executable, str(ROOT / "tools" / "fuzz_conditions.py"), "--runs", "100000"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert run.returncode == 0, (run.stdout + run.stderr)[-2000:]
    assert "100000 texts" in run.stdout
    assert "stat::number_of_executed_units: 100000" in run.stderr or "without atheris" in run.stdout


def test_the_fuzzer_sees_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from openmav.conditions import Condition

    monkeypatch.setattr(Condition, "measured", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_conditions.understood("entropy > 4", MOMENTS)
