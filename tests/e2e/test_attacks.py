"""The table of attacks, kind by kind: the command ends right or in one line, whatever it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import warm
from attacks import fuzz
from attacks.base import Attack, Result, run, warm_up
from attacks.models import original
from attacks.table import KINDS

pytestmark = pytest.mark.skipif(not warm.FORKS, reason="without fork each would import the libraries anew; make attacks runs them")
AT_ONCE = 60  # attacks of a test
LEAST = 300  # attacks that the table holds


def chunks() -> Iterator[tuple[str, int]]:
    for kind, attacks in KINDS.items():
        for first in range(0, len(list(attacks())), AT_ONCE):
            yield kind, first


@pytest.fixture(scope="module", autouse=True)
def warmed() -> None:
    warm_up()
    original()


def failures(attacks: list[Attack], folder: Path) -> list[str]:
    wrong = []
    for number, attack in enumerate(attacks):
        place = folder / str(number)
        place.mkdir()
        result: Result = run(attack, place)
        if result.why:
            wrong.append(f"{attack.name}: {result.why}; stderr: {result.err[-300:]!r}")
    return wrong


@pytest.mark.parametrize(("kind", "first"), list(chunks()))
def test_the_command_withstands(kind: str, first: int, tmp_path: Path) -> None:
    attacks = list(KINDS[kind]())[first : first + AT_ONCE]
    assert attacks
    assert failures(attacks, tmp_path) == []


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, 120, 40))
def test_the_command_withstands_random_changes_of_a_models_files(first: int, tmp_path: Path) -> None:
    assert failures(list(fuzz.attacks(first, 40)), tmp_path) == []


def test_the_table_is_long_and_each_attack_has_a_name_of_its_own() -> None:
    names = [attack.name for attacks in KINDS.values() for attack in attacks()]
    assert len(names) >= LEAST
    assert len(set(names)) == len(names), sorted({name for name in names if names.count(name) > 1})


def test_a_verdict_can_be_bad(tmp_path: Path) -> None:
    attack = Attack("x", ())
    for code, out, err in (
        (1, "", "mav: internal error: x\n"),
        (2, "", "mav: a\nmav: b\n"),
        (2, "", "no line\n"),
        (0, "", "\x1b[2J"),
        (0, "Traceback", ""),
        (-9, "", ""),
    ):
        assert Result(attack, code, out, err, 0.1, 0).why, (code, out, err)
    assert not Result(attack, 2, "", "mav: one line\n", 0.1, 0).why
    assert Result(attack, 0, "", "", 1e9, 0).why
    assert Result(attack, 0, "", "", 0.1, 10**12).why
