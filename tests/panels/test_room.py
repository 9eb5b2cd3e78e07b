"""Rows and columns of every layout, for models of all sizes: none taller than its content, no word cut unmarked, no columns that touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest
from drawing import make_view, panel

from everything import whole_steps
from fakes import make_info, sampled
from openmav import panels
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.kinds import kind_of
from openmav.apps.tui.layout import place_all
from openmav.paint import PALETTES, line_text, line_width, tile
from openmav.plugins import registry
from openmav.view import View
from openmav.view.layouts import LAYOUTS

TERMINALS = [(60, 16), (80, 24), (100, 30), (120, 36), (150, 45), (240, 70)]
LAYERS = (6, 30, 80)
NAMES = registry.names("panels")
ROOMY = (400, 120)  # where every word is written out
SHORT = {  # what a panel writes only where it is narrow, or where there is more than it can show
    *("Attn", "Entropy", "Res", "H", "L", "S", "m", "narrow", "pen", "temp"),
    *("column", "in", "more", "neurons", "of", "rest", "tokens"),
}
TOUCHING = re.compile(r"%(?=[^\s│─╮╯.,;:)])|\d(?=[█▉▊▋▌▍▎▏▐▕])|[█▉▊▋▌▍▎▏](?=\d)|(?<=[a-z])(?=[+-]\d+\.\d)|\d\.\d+(?=[·<A-Za-z])")


@cache
def run_of(layers: int, drawn: bool) -> View:
    info = make_info(layers, 8)
    steps = whole_steps(40, info)
    return make_view(steps, info, sampled()) if drawn else make_view(steps, info)


def places(layout: str, layers: int, terminal: tuple[int, int], alone: str = "") -> list[Tile]:
    kinds = {name: kind_of(name, registry.load("panels", name)) for name in LAYOUTS[layout]}
    return place_all(kinds, layers, *terminal, None, alone or next(iter(kinds)), bool(alone))


def drawn(view: View, place: Tile) -> list[str]:
    width, height = place.inner
    found = panels.draw(panel(place.name).module, view, width, height, place.width - 5, gutter=place.gutter)
    lines = tile(
        list(found.lines),
        place.width,
        place.height,
        PALETTES[view.theme],
        found.title,
        found.note,
        False,
        place.edges,
        found.legend,
        found.pointer,
    )
    assert [line_width(line) for line in lines] == [place.width] * place.height
    return [line_text(line) for line in lines]


def every_tile() -> Iterator[tuple[View, Tile, str]]:
    for layout, layers, terminal, way in product(LAYOUTS, LAYERS, TERMINALS, (False, True)):
        for place in places(layout, layers, terminal):
            yield run_of(layers, way), place, f"{layout} {layers} {terminal} {place.name} {place.inner}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layer_panel_is_taller_than_its_layers_where_others_take_the_rows(layout: str) -> None:
    for layers, terminal in product(LAYERS, TERMINALS[1:]):
        tiles = places(layout, layers, terminal)
        for place in tiles:
            kind = kind_of(place.name, registry.load("panels", place.name))
            if kind.group == "layers":
                feet = max(kind_of(one.name, registry.load("panels", one.name)).foot for one in tiles)
                assert place.inner[1] <= layers + feet, (layers, terminal, place)


def test_no_two_columns_touch() -> None:
    found = [(where, row) for view, place, where in every_tile() for row in drawn(view, place) if TOUCHING.search(row.strip("│ "))]
    assert found == []


@cache
def vocabulary(name: str, layers: int, way: bool) -> frozenset[str]:
    """All words that a panel writes where there is room."""
    view = run_of(layers, way)
    boxes = [Tile(name, 0, 0, *size) for size in (ROOMY, (400, 24), (160, 45), (160, 12))]
    text = "\n".join("\n".join(drawn(view, box)) for box in boxes)
    return frozenset(re.findall(r"[A-Za-z]+", text))


def test_no_word_is_cut_without_a_mark() -> None:
    found = []
    for view, place, where in every_tile():
        if place.name == "generated_text":
            continue  # text is wrapped, and long words go on in the next row
        known = vocabulary(place.name, view.layers, view.sampling == sampled())
        for row in drawn(view, place):
            for word in re.finditer(r"[A-Za-z]+", row):
                if word[0] not in known | SHORT and row[word.end() : word.end() + 1] != "…":
                    found.append((where, word[0], row))
    assert found == []
