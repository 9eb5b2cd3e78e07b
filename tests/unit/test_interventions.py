"""Specs of interventions: what is read is written back, and what can't be read is one line that names the spot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmav.errors import UsageError
from openmav.record.sweep_lines import COLUMNS, MINUS_COLUMNS
from openmav.settings.interventions import KINDS, Intervention, parse

SPECS = {
    "ablate L5.H3": Intervention("ablate", 5, "head", 3),
    "ablate L5.H3=mean": Intervention("ablate", 5, "head", 3, how="mean"),
    "ablate L7.mlp": Intervention("ablate", 7, "mlp"),
    "ablate L7.attn@5": Intervention("ablate", 7, "attn", positions=(5, 5)),
    "ablate L7": Intervention("ablate", 7, "layer"),
    "ablate L3.N120@2-7=mean": Intervention("ablate", 3, "neuron", 120, (2, 7), how="mean"),
    "amplify L5.attn=0.5": Intervention("amplify", 5, "attn", factor=0.5),
    "amplify L5@-1=-2": Intervention("amplify", 5, "layer", positions=(-1, -1), factor=-2),
    "amplify L5.N0=1e-07": Intervention("amplify", 5, "neuron", 0, factor=1e-7),
    "steer L8=vector.npy*4": Intervention("steer", 8, "resid", factor=4, source=("vector.npy",)),
    "steer L8@-1=a/b*c.safetensors:x.y": Intervention("steer", 8, "resid", positions=(-1, -1), source=("a/b*c.safetensors:x.y",)),
    'steer L8="I \\"love\\" it"-"a * b\\\\"*4': Intervention("steer", 8, "resid", factor=4, source=('I "love" it', "a * b\\")),
    "patch L6.resid@5=other prompt": Intervention("patch", 6, "resid", positions=(5, 5), source=("other prompt",)),
    "patch L6.H2= x=@y\n ": Intervention("patch", 6, "head", 2, source=(" x=@y\n ",)),
}


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_is_read_and_written_back(spec: str) -> None:
    assert parse(spec) == SPECS[spec]
    assert str(SPECS[spec]) == spec


def test_zero_is_what_ablate_does_anyway() -> None:
    assert parse("ablate L1.mlp=zero") == parse(" ablate  L1.mlp ") == parse("ablate L1.mlp")


@pytest.mark.parametrize(
    ("spec", "column", "why"),
    [
        ("", 1, "begins with ablate, amplify, steer or patch"),
        ("remove L5", 1, "begins with ablate, amplify, steer or patch"),
        ("ablate", 7, "a site follows"),
        ("ablate H3", 8, "a layer is written L and its number"),
        ("ablate L", 9, "the number of a layer"),
        ("ablate L5.X3", 11, r"known: H3 \(a head\), N120 \(a neuron\), attn, mlp$"),
        ("ablate L5.resid", 11, "known: H3"),
        ("ablate L5.H", 11, "known: H3"),
        ("ablate L5@", 11, "a position follows: 5, 2-7, or -1"),
        ("ablate L5@5-2", 11, "the last position comes before the first"),
        ("ablate L5=avg", 11, "known: zero, mean"),
        ("ablate L5 now", 10, "known here: @POSITIONS, =zero, =mean"),
        ("amplify L5", 11, "=FACTOR follows"),
        ("amplify L5=big", 12, "a number follows"),
        ("amplify L5=1e999", 12, "the number is too large"),
        ("amplify L5=2 L6=3", 14, "nothing more is known here"),
        ("steer L8.mlp=v.npy", 9, "=VECTOR follows"),
        ("steer L8=vector.txt", 10, "known: FILE.npy"),
        ("steer L8=v.npy*", 16, "a number follows"),
        ('steer L8="a', 10, "the text does not end"),
        ('steer L8="a"', 13, "the text to subtract follow"),
        ('steer L8="a"-""', 16, "a text of the difference is empty"),
        ("patch L6=x", 9, r"say what of the layer: \.resid"),
        ("patch L6.mlp@5", 15, "=TEXT follows"),
        ("patch L6.mlp@5=", 16, "the text to take the value from is empty"),
    ],
)
def test_what_cannot_be_read_names_the_spot(spec: str, column: int, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse(spec)
    assert f"at column {column}, " in str(caught.value)
    assert f"'{spec}'" in str(caught.value)


@given(st.text(alphabet=st.sampled_from('ablte mpifysrch L0123456789.HNatnlp@-=*"\\:ny€\n'), max_size=40), st.sampled_from(list(SPECS)))
def test_only_its_own_error_ever_comes_out(noise: str, spec: str) -> None:
    for text in (noise, spec[: len(noise)] + noise, spec + noise):
        try:
            found = parse(text)
        except UsageError:
            continue
        assert parse(str(found)) == found


def test_the_page_shows_specs_that_are_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "interventions.md").read_text(encoding="utf-8")
    flags = [(kind, quoted or plain) for kind, quoted, plain in re.findall(r"--(ablate|amplify|steer|patch) (?:'([^']+)'|(L\S+))", page)]
    assert len(flags) == 7
    assert {parse(f"{kind} {spec}").kind for kind, spec in flags} == set(KINDS)
    assert [name for name in (*COLUMNS, *MINUS_COLUMNS) if f"`{name}`" not in page] == []
