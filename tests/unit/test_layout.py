"""Where panels stand, at every size."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import make_info, make_prompt, make_steps
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.kinds import for_view, kind_of, kinds_of
from openmav.apps.tui.layout import arrange, single
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.view import View
from openmav.view.layouts import LAYOUTS
from openmav.view.options import PANELS

KINDS = {name: kind_of(name, registry.load("panels", name)) for name in (*PANELS, "attention_norms")}
SHARES = st.sampled_from((0.25, 1.0, 4.0))
OVERVIEW = {name: KINDS[name] for name in PANELS}


def overlap(a: Tile, b: Tile) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def check(tiles: list[Tile], width: int, height: int) -> None:
    """They fill the body, inside of it, none over another."""
    assert sum(tile.width * tile.height for tile in tiles) == width * height
    assert all(tile.x >= 0 and tile.x + tile.width <= width for tile in tiles)
    assert all(tile.y >= 0 and tile.y + tile.height <= height for tile in tiles)
    assert not any(overlap(a, b) for a, b in combinations(tiles, 2))


@given(
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True),
    st.integers(0, 120),
    st.integers(72, 300),
    st.integers(18, 100),
    st.none() | st.integers(1, 9),
)
def test_any_choice_fills_the_screen(names: list[str], layers: int, width: int, height: int, grid: int | None) -> None:
    tiles = arrange({name: KINDS[name] for name in names}, layers, width, height, grid)
    assert [tile.name for tile in tiles] == names
    check(tiles, width, height)


@given(
    st.dictionaries(
        st.sampled_from(sorted(KINDS)), st.tuples(st.sampled_from((0.25, 1.0, 4.0)), st.sampled_from((0.25, 1.0, 4.0))), min_size=1
    ),
    st.integers(0, 120),
    st.integers(72, 300),
    st.integers(18, 100),
    st.none() | st.integers(1, 9),
)
def test_any_sizes_that_a_reader_chose_fill_the_screen(
    sizes: dict[str, tuple[float, float]], layers: int, width: int, height: int, grid: int | None
) -> None:
    kinds = {name: replace(KINDS[name], weight=KINDS[name].weight * wide, tall=tall) for name, (wide, tall) in sizes.items()}
    check(arrange(kinds, layers, width, height, grid), width, height)


def test_a_wider_and_taller_panel_takes_from_its_neighbours() -> None:
    before = {tile.name: tile for tile in arrange(OVERVIEW, 30, 160, 43)}
    kinds = {**OVERVIEW, "generated_text": replace(OVERVIEW["generated_text"], weight=2.0, tall=1.5)}
    after = {tile.name: tile for tile in arrange(kinds, 30, 160, 43)}
    assert after["generated_text"].width > before["generated_text"].width
    assert after["generated_text"].height > before["generated_text"].height
    assert after["top_predictions"].width < before["top_predictions"].width
    assert after["residual_norms"].height < before["residual_norms"].height


def test_the_overview_at_home() -> None:
    places = {tile.name: tile for tile in arrange(OVERVIEW, 30, 160, 43)}
    layers = [places[name] for name in ("mlp_norm", "attention_entropy", "residual_norms")]
    assert len({(tile.y, tile.height) for tile in layers}) == 1, "rows of the same layer stand side by side"
    assert [tile.gutter for tile in layers] == [True, False, False]
    assert places["generated_text"].y == places["top_predictions"].y == 0
    assert places["timeline"].width == 160


def test_few_layers_leave_room_for_the_text() -> None:
    small, large = ({tile.name: tile for tile in arrange(OVERVIEW, layers, 160, 43)} for layers in (6, 30))
    assert small["generated_text"].height > large["generated_text"].height


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 2), (3, 3), (7, 7), (20, 7)])
def test_a_grid_has_the_rows_that_were_asked_for(rows: int, expected: int) -> None:
    tiles = arrange(OVERVIEW, 30, 160, 43, rows)
    assert len({tile.y for tile in tiles}) == expected
    assert all(tile.gutter for tile in tiles)


def test_one_alone() -> None:
    tile = arrange(OVERVIEW, 30, 60, 14, None, "timeline")
    assert tile == [Tile("timeline", 0, 0, 60, 14)]


def test_which_screens_are_small() -> None:
    assert single(60, 16)
    assert not single(80, 24)


def shown(layout: str, layers: int, width: int = 160, height: int = 43) -> dict[str, Tile]:
    kinds = {name: kind_of(name, registry.load("panels", name)) for name in LAYOUTS[layout]}
    return {tile.name: tile for tile in arrange(kinds, layers, width, height)}


def test_few_layers_have_the_other_panels_below_them() -> None:
    few, many = shown("layers", 6), shown("layers", 30)
    assert few["neurons"].width == 160
    assert few["neurons"].y == few["residual_norms"].y + few["residual_norms"].height
    assert many["neurons"].y == many["residual_norms"].y


def test_panels_beside_the_layers_keep_a_row_each_where_there_is_room() -> None:
    places = shown("health", 30, 150)
    beside = [places[name] for name in ("health", "accounting", "uncertainty")]
    assert len({tile.y for tile in beside}) == 3
    assert len({tile.x for tile in beside}) == 1


def test_a_text_alone_takes_no_more_rows_than_it_fills() -> None:
    assert shown("attention", 30)["generated_text"].height <= 9


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layers", [2, 6, 30, 80])
@pytest.mark.parametrize(("width", "height"), [(80, 22), (160, 43), (240, 68)])
def test_every_layout_fills_the_screen(layout: str, layers: int, width: int, height: int) -> None:
    tiles = list(shown(layout, layers, width, height).values())
    check(tiles, width, height)
    assert all(tile.height >= 3 for tile in tiles)


def test_spare_rows_of_a_tall_screen_go_to_the_text_before_the_timeline() -> None:
    tiles = {tile.name: tile for tile in arrange(OVERVIEW, 6, 240, 67)}
    assert tiles["timeline"].height <= 14
    assert tiles["generated_text"].height > tiles["timeline"].height


def test_a_panel_that_needs_few_rows_now_leaves_the_others_to_the_text() -> None:
    modules = {name: registry.load("panels", name) for name in LAYOUTS["hands-on"]}
    steps = make_steps(4, make_info())
    rest = View().updated(Snapshot(info=make_info(), prompt=make_prompt(), steps=steps, status="paused"))
    modified = replace(rest, steps=(*steps[:-1], replace(steps[-1], interventions=("ablate L1.H0",))))
    kinds = kinds_of(modules, {})
    at_rest, at_work = ({tile.name: tile for tile in arrange(for_view(kinds, modules, view), 12, 150, 42)} for view in (rest, modified))
    assert at_rest["interventions"].height <= 10 < at_work["interventions"].height
    assert at_rest["generated_text"].height > at_work["generated_text"].height
    assert for_view({"x": kinds["branches"]}, {"x": SimpleNamespace(rows=lambda view: 1)}, rest)["x"].rows is None, "only mav's own"
