"""An intervention as fields: they make the text, the text makes them, and each says what is wrong with it."""

from __future__ import annotations

import pytest

from fakes import make_info
from openmav.apps.tui.intervention_fields import CHOICES, Fields, fields_of
from openmav.settings.interventions import KINDS, parse
from openmav.view import View

VIEW = View(info=make_info(6, 4), layer=2, head=1)
SPECS = (
    "ablate L5.H3",
    "ablate L5",
    "ablate L5.mlp@2-7=mean",
    "amplify L3.N120@-1=0.5",
    "amplify L0.attn=-2",
    'steer L4="I love \\"it\\""-"I hate it"*4',
    "steer L4@3=vector.npy",
    "patch L2.resid@5=The Eiffel Tower is in",
    "patch L2.H1=x = y",
)


@pytest.mark.parametrize("spec", SPECS)
def test_the_text_makes_the_fields_and_they_make_the_text(spec: str) -> None:
    fields = Fields().read(spec)
    assert str(parse(fields.spec)) == str(parse(spec))
    assert not any(wrong for _, wrong in fields.notes(View(info=make_info(6, 4))).values())


def test_every_kind_with_every_part_that_it_offers_can_be_read() -> None:
    for kind in KINDS:
        fields = Fields(text="x").with_("kind", kind)
        for part in fields.parts:
            assert parse(fields.with_("part", part).spec).kind == kind
    assert set(CHOICES["part"]) == {part for kind in KINDS for part in Fields(kind=kind).parts}


def test_a_part_that_the_kind_cannot_change_gives_way() -> None:
    patched = Fields(kind="patch", part="resid", text="x")
    assert patched.with_("kind", "ablate").part == "head"
    assert Fields(part="layer").with_("kind", "patch").part == "head"
    assert Fields(part="mlp").with_("kind", "patch").part == "mlp"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("layer", "6", "no layer 6: 0 to 5"),
        ("layer", "x", "a whole number, 0 to 5"),
        ("layer", "", "a whole number, 0 to 5"),
        ("layer", "²", "a whole number, 0 to 5"),
        ("index", "4", "no head 4: 0 to 3"),
        ("positions", "7-2", "5, 2-7 or -1"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(name: str, value: str, says: str) -> None:
    notes = Fields().with_(name, value).notes(VIEW)
    assert notes[name] == (says, True)
    assert [field for field, (_, wrong) in notes.items() if wrong] == [name]


@pytest.mark.parametrize(
    ("fields", "name"), [(Fields("amplify", factor="inf"), "factor"), (Fields("steer", vector="love"), "vector"), (Fields("patch"), "text")]
)
def test_what_a_kind_needs_is_named(fields: Fields, name: str) -> None:
    assert fields.notes(VIEW)[name][1]


def test_what_is_typed_for_one_kind_waits_while_another_is_looked_at() -> None:
    fields = Fields("amplify", factor="0.25")
    assert fields.with_("kind", "ablate").with_("kind", "amplify").spec == fields.spec


def test_it_begins_at_the_selected_layer_and_head() -> None:
    assert fields_of(VIEW).spec == "ablate L2.H1"
    assert fields_of(View(info=make_info(6, 0), layer=3)).spec == "ablate L3.mlp"
