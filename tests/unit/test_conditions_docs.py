"""docs/conditions.md: what it shows can be parsed, and it says what every name is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openmav.conditions import DEEPEST, LONGEST, known_names, parse, parse_breakpoint
from openmav.conditions._values import AXES, CANDIDATE, LAYERED, PLAIN
from openmav.plugins.registry import _own

MEASURES = _own("measures")  # mav's, without those of files that other tests make known
DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "conditions.md").read_text(encoding="utf-8")
NAMES = PAGE[PAGE.index("## Names") :]
GRAMMAR = PAGE.partition("## How it is written")[2].partition("## Names")[0]
EXAMPLES = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## Examples")[2].partition("## How")[0], re.MULTILINE)
BREAKS, WATCHES = re.findall(r"--break '([^']+)'", PAGE), re.findall(r"--watch '([^']+)'", PAGE)
SPANS = sorted({span for span in re.findall(r"`([^`\n]+)`", PAGE.replace(GRAMMAR, "")) if "[" in span or "(" in span})


@pytest.mark.parametrize("text", [*EXAMPLES, *BREAKS])
def test_each_example_is_a_breakpoint(text: str) -> None:
    parse_breakpoint(text)


@pytest.mark.parametrize("text", [*WATCHES, *SPANS])
def test_each_expression_in_the_text_is_understood(text: str) -> None:
    if not text.startswith("breakpoint "):
        parse(text)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 10
    assert len(SPANS) > 15
    assert BREAKS
    assert WATCHES


@pytest.mark.parametrize("name", [name for name in known_names() if name not in MEASURES])
def test_each_name_is_explained(name: str) -> None:
    assert re.search(rf"^\| [^|]*`{name}[`(\[]", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", [*PLAIN, *CANDIDATE])
def test_it_says_of_a_name_what_the_program_says(name: str) -> None:
    told = PLAIN[name][2] if name in PLAIN else CANDIDATE[name][1]
    row = next(line for line in NAMES.splitlines() if re.match(rf"\| [^|]*`{name}`", line))
    assert told.partition(";")[0].partition(" of the sampling")[0] in row or "of the sampling" in row


def test_the_limits_are_said() -> None:
    assert f"At most {LONGEST} characters, and at most {DEEPEST} things inside each other" in GRAMMAR


def test_all_signs_are_shown() -> None:
    for sign in ("or", "and", "not", "==", "!=", "<", "<=", ">", ">=", "~", "+", "-", "*", "/"):
        assert f"`{sign}`" in GRAMMAR


def test_every_shipped_measure_has_its_axes_and_every_layer_name_a_measure() -> None:
    assert {array.partition(".")[0] for array in AXES} == MEASURES
    assert {array for array, *_ in LAYERED.values()} - {""} <= MEASURES


def test_the_axes_are_those_of_real_arrays() -> None:
    from openmav.backends.toy import Toy
    from openmav.generation.session import Session
    from openmav.settings import Settings

    session = Session(Toy("toy", {}), Settings(model="toy", prompt="Hello", backend="toy", measures=tuple(sorted(MEASURES))))
    values = session.step().values
    assert values.keys() - AXES.keys() == set()
    info = session.info
    for name, array in values.items():
        axes = AXES[name]
        assert array.ndim == len(axes), name
        lengths = {"layer": info.layers, "head": info.heads, "one": 1}
        assert all(lengths.get(axis, length) == length for axis, length in zip(axes, array.shape)), name
