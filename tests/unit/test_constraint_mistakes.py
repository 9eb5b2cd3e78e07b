"""A constraint that makes no sense is one line, before a model is loaded."""

from __future__ import annotations

import pytest

from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.settings import Settings
from openmav.settings.constraint import Constraint


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"regex": "a", "json_schema": "{}"}, "exclude each other"),
        ({"regex": ""}, "is empty"),
        ({"ban": ("",)}, "must not be empty"),
        ({"require": ("",)}, "must not be empty"),
        ({"regex": "a", "require": ("a",)}, "put it into the pattern"),
        ({"require": ("a cat",), "ban": ("cat",)}, "is required and 'cat'"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": "3"}, "an object in braces"),
        ({"ban": ("\udcff",)}, "not valid UTF-8"),
    ],
)
def test_what_makes_no_sense_is_one_line(asked: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Constraint(**asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"json_schema": "false"}, "no text at all"),
        ({"json_schema": '{"const": 98765432109876543210}'}, "98765432109876543210 is too large"),
        ({"json_schema": '{"type": "integer", "maximum": -98765432109876543210}'}, "is too large"),
        ({"json_schema": '{"enum": [1e999]}'}, "is too large"),
        ({"regex": "(ab"}, "the regular expression cannot be used: unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"json_schema": '{"type": "objectt"}'}, "the JSON schema cannot be used: .*objectt"),
        ({"json_schema": '{"type": "array", "uniqueItems": true}'}, "uniqueItems"),
    ],
)
def test_a_wrong_grammar_is_one_line_before_a_model_is_loaded(asked: dict, says: str) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(UsageError, match=says) as caught:
        open_session(Settings("no-such-model", constraint=Constraint(**asked)))
    assert "\n" not in str(caught.value)


def test_without_llguidance_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from openmav.settings import constraint

    monkeypatch.setattr(constraint.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"--regex needs llguidance: pip install 'openmav\[constrained\]'"):
        Constraint(regex="a").grammar()
    assert Constraint(ban=("a",)).grammar() is None
