"""Every panel there is, in every box that a layout gives it, for small and large models, short and long texts."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
from drawing import OnView, make_view, panel

from everything import spoilt, whole_steps
from fakes import HOSTILE, make_info
from openmav import panels
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.kinds import kind_of
from openmav.apps.tui.layout import place_all
from openmav.paint import PALETTES, Edges, line_text, line_width, tile
from openmav.plugins import registry
from openmav.view import View
from openmav.view.layouts import LAYOUTS

NAMES = registry.names("panels")
TERMINALS = [(60, 16), (80, 24), (160, 45), (240, 70)]
LAYERS, HEADS, HISTORIES = (2, 32, 80), (8, 128), (0, 5, 5000)
SAYS = ("▲", "▼", "◂", "▸ ", "◀", "▶", "…", " of ", "/cell", "more", "newest", "last ")  # how a panel tells that there is more
every = pytest.mark.parametrize("name", NAMES)


@cache
def run_of(layers: int, heads: int, tokens: int, hostile: bool = False) -> View:
    info = make_info(layers, heads)
    return make_view(whole_steps(tokens, info, HOSTILE if hostile else None), info)


@cache
def broken(value: float) -> View:
    """A model whose numbers are all NaN, or all infinite."""
    view = run_of(32, 8, 5)
    return replace(view, steps=tuple(spoilt(step, value) for step in view.steps))


@cache
def lacking(layers: tuple[int, ...]) -> View:
    """A model of 32 layers; these have nothing that any measure looks for."""
    missing = {measure: dict.fromkeys(layers, "a state-space layer") for measure in registry.names("measures")}
    info = make_info(32, 8, missing=missing)
    return make_view(whole_steps(5, info), info)


@cache
def boxes(name: str, layers: int) -> list[Tile]:
    """In every terminal: the panel alone on the screen, and beside those of the overview."""
    kinds = {one: kind_of(one, panel(one)) for one in dict.fromkeys((*LAYOUTS["overview"], name))}
    placed = [place_all(kinds, layers, *terminal, None, name, alone) for terminal in TERMINALS for alone in (True, False)]
    return [place for places in placed for place in places if place.name == name]


def framed(module: OnView, view: View, place: Tile) -> str:
    """All that the panel's tile says, a row a line; fails where the panel does, or where it leaves its box."""
    width, height = place.inner
    found = panels.draw(module.module, view, width, height, place.width - 5, gutter=place.gutter)
    lines = list(found.lines)
    assert len(lines) <= height, "more rows than the box has"
    assert all(line_width(line) <= width for line in lines), "a row is wider than the box"
    drawn = tile(lines, place.width, place.height, PALETTES[view.theme], found.title, found.note, True, place.edges, found.legend)
    assert [line_width(line) for line in drawn] == [place.width] * place.height
    text = "\n".join(map(line_text, drawn))
    assert not [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs")]
    return text


def reached(module: OnView, view: View, place: Tile) -> tuple[set[int], set[int]]:
    """The layers and the tokens that a click in the box can reach."""
    width, height = place.inner
    pick = module.pick
    below = [pick(view, width, height, width // 2, y, place.gutter) for y in range(height)]
    beside = [pick(view, width, height, x, height // 2, place.gutter) for x in range(0, width, max(1, width // 4))]
    return {one.layer for one in below}, {one.cursor for one in beside}


@every
def test_it_stays_in_its_box(name: str) -> None:
    module = panel(name)
    for layers, heads, tokens in product(LAYERS, HEADS, HISTORIES):
        view = run_of(layers, heads, tokens)
        for place in boxes(name, layers):
            assert framed(module, view, place)


@every
def test_a_reader_squeezes_it(name: str) -> None:
    """Every width that the keys can give it: what does not fit is left out whole, or the panel says that it has no room."""
    module = panel(name)
    for layers, heads, beside in ((2, 8, False), (80, 128, True)):
        view = run_of(layers, heads, 5)
        edges = Edges(left_open=beside, right_open=beside)
        for width, height in product(range(8, 60), (3, 9)):
            text = framed(module, view, Tile(name, 0, 0, width, height, edges, gutter=not beside))
            assert any(line.strip("│ ") for line in text.split("\n")[1:-1]), (width, height)


@every
def test_what_is_cut_is_said(name: str) -> None:
    """Where a click reaches some layers or tokens, and not all of them, the tile says that there are more."""
    module = panel(name)
    for layers, tokens in ((80, 1), (2, 5000)):
        view = run_of(layers, 8, tokens)
        for place in boxes(name, layers):
            found_layers, found_tokens = reached(module, view, place)
            cut = (1 < len(found_layers) < layers and place.gutter) or 1 < len(found_tokens) < tokens
            assert not cut or any(mark in framed(module, view, place) for mark in SAYS), (layers, tokens, place)


@every
def test_every_kind_of_it(name: str) -> None:
    module = panel(name)
    for mode, (layers, tokens) in product(getattr(module, "MODES", ()), ((2, 5), (80, 5000))):
        view = replace(run_of(layers, 128, tokens), modes={name: mode})
        for place in boxes(name, layers):
            assert framed(module, view, place)


@every
def test_it_says_something_once_there_are_tokens(name: str) -> None:
    module = panel(name)
    for place in boxes(name, 32):
        width, height = place.inner
        text = "".join(map(line_text, module.render(run_of(32, 8, 5), width, height)))
        assert text.strip() or height == 0


@every
def test_a_broken_model(name: str) -> None:
    for value, place in product((float("nan"), float("inf")), boxes(name, 32)):
        assert framed(panel(name), broken(value), place)


@every
def test_layers_that_have_no_such_part(name: str) -> None:
    module = panel(name)
    for none in ((1, 3), tuple(range(32))):
        view = lacking(none)
        assert not view.alarms()
        for place in boxes(name, 32):
            text = framed(module, view, place)
            assert "NaN" not in text
            assert "nan" not in text


@every
def test_tokens_that_nobody_captured(name: str) -> None:
    view = run_of(32, 8, 5)
    bare = replace(view, steps=tuple(replace(step, values={}) for step in view.steps))
    for place in boxes(name, 32):
        assert framed(panel(name), bare, place)


@every
def test_hostile_tokens_stay_in_their_cells(name: str) -> None:
    view = run_of(2, 8, len(HOSTILE), hostile=True)
    for place, cursor in product(boxes(name, 2), range(0, len(HOSTILE), 6)):
        assert framed(panel(name), view.at_step(cursor), place)
