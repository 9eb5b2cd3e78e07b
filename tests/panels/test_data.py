"""What a web page or a notebook gets of every panel: data that is complete, plain, the same each time, and knows no screen."""

from __future__ import annotations

import dataclasses
import pickle
import types
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from drawing import make_view

from everything import whole_steps
from fakes import HOSTILE, make_attribution, make_info, make_prompt
from openmav.paint import printable
from openmav.panels import Box
from openmav.plugins import registry
from openmav.record import Baseline, Branch
from openmav.view import View

NAMES = registry.names("panels")
BOXES = ((9, 3), (36, 9), (110, 30))
SCREEN = ("rich.segment", "rich.style", "textual", "torch", "openmav.paint.frame", "openmav.paint.lines", "openmav.paint.theme")
every = pytest.mark.parametrize("name", NAMES)


@cache
def views() -> list[View]:
    """Nothing yet, a run with everything in it, and one whose cursor went back in a text of hostile tokens."""
    info = make_info(4, 3)
    steps = tuple(
        replace(
            step,
            interventions=("ablate L1.H0",),
            before=Baseline(step.candidates, step.logprob - 1, step.entropy + 1, step.values, step.pieces),
        )
        for step in whole_steps(30, info)
    )
    beside = Branch("left\x1b[2J", make_prompt(), (*steps[:9], *whole_steps(20, info, HOSTILE)[9:]), "main", 9)
    full = make_view(
        steps,
        info,
        branches={beside.name: beside},
        breakpoints=("entropy > 4", "norm(mlp, 9) > 1"),
        watches=("token", "norm(mlp, 3)"),
        interventions=("ablate L1.H0",),
        attribution=make_attribution(make_prompt(), steps, 29),
        memory={"app": 10**8},
    )
    hostile = make_view(whole_steps(60, info, HOSTILE), info)
    missing = {measure: {1: "none\x07 here"} for measure in registry.names("measures")}
    bare = make_info(4, 3, missing=missing)
    return [View(), full, hostile.at_step(20).at_layer(1), make_view(whole_steps(3, bare), bare)]


def seen(name: str) -> Iterator[tuple[View, Box]]:
    """Every view in every mode of the panel, with and without a size."""
    for view in views():
        for mode in getattr(registry.load("panels", name), "MODES", ("",)):
            shown = replace(view, modes={name: mode})
            for size in BOXES:
                yield replace(shown, size=size), Box.of(view, *size)
            yield shown, Box.of(view, 80, 24)


def output(name: str, data: object, box: Box) -> tuple[object, ...]:
    module = registry.load("panels", name)
    parts = (getattr(module, part)(data, box) for part in ("heading", "note", "legend", "render") if hasattr(module, part))
    return tuple(parts)


def leaves(value: object) -> Iterator[object]:
    """All that the data is made of; fails for a kind of thing that a page could not read."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        assert value.__dataclass_params__.frozen, type(value)  # type: ignore[attr-defined]
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (key, *leaves(one))
    else:
        yield value


@every
def test_a_copy_of_the_data_draws_the_same(name: str) -> None:
    for view, box in seen(name):
        data = registry.load("panels", name).data(view)
        copy = pickle.loads(pickle.dumps(data))
        assert output(name, copy, box) == output(name, data, box)


@every
def test_the_same_view_gives_the_same_data(name: str) -> None:
    module = registry.load("panels", name)
    for view, _ in seen(name):
        assert pickle.dumps(module.data(view)) == pickle.dumps(module.data(replace(view)))


@every
def test_a_size_leaves_out_only_what_does_not_fit(name: str) -> None:
    """The data of the whole run draws the same as the data that was cut for the box."""
    module = registry.load("panels", name)
    for view, box in seen(name):
        if view.size is not None:
            assert output(name, module.data(replace(view, size=None)), box) == output(name, module.data(view), box)


@every
def test_it_is_made_of_arrays_tuples_numbers_and_safe_texts(name: str) -> None:
    known = (np.ndarray, str, int, float, bool, type(None))
    found = [leaf for view, _ in seen(name) for leaf in leaves(registry.load("panels", name).data(view))]
    assert found
    assert {type(leaf) for leaf in found if not isinstance(leaf, known)} == set()
    texts = {leaf for leaf in found if isinstance(leaf, str)} - {"left\x1b[2J"}  # the name by which a click selects the branch
    assert [text for text in texts if printable(text) != text] == []


@every
def test_colours_are_no_part_of_it(name: str) -> None:
    module = registry.load("panels", name)
    for view, _ in seen(name):
        blind = replace(view, theme="nothing that a panel could draw with")
        assert pickle.dumps(module.data(blind)) == pickle.dumps(module.data(view))


def reached(function: types.FunctionType, seen: set[object]) -> Iterator[Any]:
    """All globals that a function uses, and those that functions of mav which it uses use."""
    names = [function.__code__]
    while names:
        code = names.pop()
        names += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        for name in code.co_names:
            value = function.__globals__.get(name)
            value = getattr(value, "__wrapped__", value)
            if value is None or id(value) in seen:
                continue
            seen.add(id(value))
            yield value
            if isinstance(value, types.FunctionType) and value.__module__.startswith("openmav."):
                yield from reached(value, seen)


@every
def test_data_uses_nothing_of_a_screen_or_a_model(name: str) -> None:
    things = list(reached(registry.load("panels", name).data, set()))
    used = {getattr(thing, "__module__", None) or getattr(thing, "__name__", "") for thing in things}
    assert any(module.startswith("openmav.") for module in used)
    assert [module for module in used if module.startswith(SCREEN)] == []
