"""The box of each panel: a pure function of names and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from openmav.apps.tui.boxes import LEAST_ROWS, Tile, grid, in_row, in_rows, layer_row, split, stacked_rows
from openmav.apps.tui.kinds import TOP, Kind

SMALL = (72, 20)  # below this width or height: one panel at a time
CARD_ROWS = 12  # more than it asks for, that it has a use for below the text
NARROW = 24  # cells that a panel beside the layers needs at least
SIDE_ROWS = 10  # rows that suffice for most of them
ASIDE = 120  # cells of a screen from which on text and candidates may stand beside the layers
SMALL_ROWS = 16  # frame included, of a panel that has little to show
STACKED_ROWS = 14  # that must be left below the layers for other panels
ALONE_ROWS = 8  # the same where neither text nor candidates are shown
WIDE = 200  # cells from which few layer panels leave half of the width to others
LEAST_WITH_BAR = 14  # rows of a screen that names the layouts
STRIP_ROWS = 14  # of a strip beyond which others have a better use for them


def single(width: int, height: int) -> bool:
    """Whether there is room for only one panel."""
    return width < SMALL[0] or height < SMALL[1]


def arrange(
    kinds: Mapping[str, Kind], layers: int, width: int, height: int, grid_rows: int | None = None, alone: str | None = None
) -> list[Tile]:
    """Boxes that fill `width` x `height`, in the order of `kinds`.

    `alone` gives one panel all of it; `grid_rows` forces a grid with that many rows. `layers` is 0 while no model is known.
    """
    if alone is not None:
        return [Tile(alone, 0, 0, width, height)]
    if grid_rows:
        return grid(kinds, width, height, grid_rows)
    kinds = _settled(kinds, width)
    groups = {group: [name for name, kind in kinds.items() if kind.group == group] for group in ("top", "layers", "side", "strip")}
    has_middle = bool(groups["layers"] or groups["side"])
    strip = _strip_height(kinds, groups["strip"], height, not has_middle and not groups["top"])
    rest = height - strip
    if _is_aside(kinds, groups, layers, width, rest):
        return _in_order(kinds, _aside(kinds, groups, layers, width, height, strip))
    if not has_middle and groups["top"] not in ([], [TOP[0]]) and groups["strip"]:  # what text and candidates have no use for
        strip += max(0, rest - max(_most(kinds, groups["top"], rest), rest * 2 // 3))
        rest = height - strip
    if _has_column(kinds, groups, layers, width):
        tiles = _column(kinds, groups, layers, width, rest)
        return _in_order(kinds, tiles + stacked_rows(kinds, [[name] for name in groups["strip"]], 0, rest, width, strip))
    stacked = _is_stacked(kinds, groups, layers, width, rest)
    wanted = _wanted(kinds, rest, layers, groups, stacked)
    top = rest if not has_middle else _top_height(kinds, rest, wanted, groups) if groups["top"] else 0
    grown = 0  # rows of the layer panels beyond those that they need
    if has_middle:
        spare = max(0, rest - top - wanted)
        if any(kinds[name].beside for name in groups["side"]):  # what is read goes before the timeline
            top += spare - min(spare // 2, CARD_ROWS)
        elif groups["strip"]:
            more = max(0, min(spare, STRIP_ROWS * len(groups["strip"]) - strip))
            if groups["top"]:
                top += spare - more
            else:
                grown = min(spare - more, _more(kinds, groups["layers"]))
                more = spare - grown - min(spare - more - grown, _more(kinds, groups["side"]) * stacked)
            strip, rest = strip + more, rest - more
        elif groups["top"]:
            top += spare
    tiles = in_row(_with_wide_text(kinds, has_middle, width), groups["top"], 0, 0, width, top)
    tiles += _middle(kinds, groups, layers, top, width, rest - top, stacked, grown)
    tiles += stacked_rows(kinds, [[name] for name in groups["strip"]], 0, rest, width, strip)
    return _in_order(kinds, tiles)


def _with_wide_text(kinds: Mapping[str, Kind], has_middle: bool, width: int) -> dict[str, Kind]:
    """The text wider than the candidates beside it where there is room for both, and most of all where nothing else is shown."""
    share = 1.0 if width < ASIDE or any(kind.beside for kind in kinds.values()) else 1.3 if has_middle else 2.0
    return {name: replace(kind, weight=kind.weight * share) if name == TOP[0] else kind for name, kind in kinds.items()}


def _settled(kinds: Mapping[str, Kind], width: int) -> dict[str, Kind]:
    """The kinds with panels of the top moved to the side where they would be too narrow; those that stay have a use for all rows."""
    settled, top = dict(kinds), [name for name, kind in kinds.items() if kind.group == "top"]
    for name, wide in zip(top, split(width, [kinds[name].weight for name in top])):
        if kinds[name].beside:
            settled[name] = replace(kinds[name], group="side") if wide < kinds[name].beside else replace(kinds[name], rows=None)
    return settled


def _in_order(kinds: Mapping[str, Kind], tiles: Sequence[Tile]) -> list[Tile]:
    order = list(kinds)
    return sorted(tiles, key=lambda tile: order.index(tile.name))


def _is_aside(kinds: Mapping[str, Kind], groups: Mapping[str, Sequence[str]], layers: int, width: int, rest: int) -> bool:
    """Whether text and candidates stand beside the layer panels rather than above them: those need the height, and there is the width."""
    needed = _layer_rows(kinds, groups["layers"], layers)
    return bool(layers and groups["top"] and groups["layers"]) and not groups["side"] and width >= ASIDE and needed > rest * 2 // 3


def _aside(kinds: Mapping[str, Kind], groups: Mapping[str, Sequence[str]], layers: int, width: int, height: int, strip: int) -> list[Tile]:
    """Text above candidates in a column on the left, the layer panels beside it as high as they need."""
    high = min(_layer_rows(kinds, groups["layers"], layers), height - strip)
    column = round(width * 0.3)
    tiles = stacked_rows(kinds, [[name] for name in groups["top"]], 0, 0, column, high)
    tiles += [replace(tile, x=tile.x + column) for tile in layer_row(kinds, groups["layers"], 0, width - column, high)]
    if not groups["strip"]:
        tiles = [replace(tile, height=tile.height + (height - high) * (tile.y + tile.height == high)) for tile in tiles]
    return tiles + stacked_rows(kinds, [[name] for name in groups["strip"]], 0, high, width, height - high)


def _has_column(kinds: Mapping[str, Kind], groups: Mapping[str, Sequence[str]], layers: int, width: int) -> bool:
    """Whether what stands beside the layer panels has a use for all rows, and so stands beside the text too."""
    there = bool(layers and groups["layers"] and groups["side"]) and groups["top"] == [TOP[0]]
    return there and width < WIDE and all(kinds[name].rows is None for name in groups["side"])


def _column(kinds: Mapping[str, Kind], groups: Mapping[str, Sequence[str]], layers: int, width: int, height: int) -> list[Tile]:
    """The text above the layer panels on the left, and what is beside both as high as they are together."""
    side = _side_width(width, sum(kinds[name].weight for name in groups["layers"]))
    least = min(_most(kinds, groups["top"], height), height // 2)
    high = min(_layer_rows(kinds, groups["layers"], layers), height - least)
    tiles = in_row(kinds, groups["top"], 0, 0, width - side, height - high)
    tiles += layer_row(kinds, groups["layers"], height - high, width - side, high)
    return tiles + stacked_rows(kinds, [[name] for name in groups["side"]], width - side, 0, side, height)


def _strip_height(kinds: Mapping[str, Kind], names: Sequence[str], height: int, alone: bool) -> int:
    """Rows of all strips together: all rows if nothing else is shown, else at most half."""
    if alone:
        return height
    return min(sum(max(LEAST_ROWS, round((5 if height >= 34 else 3) * kinds[name].tall)) for name in names), height // 2)


def _top_height(kinds: Mapping[str, Kind], rest: int, wanted: int, groups: Mapping[str, Sequence[str]]) -> int:
    """A good third for text and predictions; more where what is below needs less, or where the user made it taller."""
    height = max(min(6, rest // 2), round(rest * 0.36), rest - wanted)
    height = min(height, _most(kinds, groups["top"], rest))
    below = max(kinds[name].tall for name in (*groups["layers"], *groups["side"]))
    height = round(height * max(kinds[name].tall for name in groups["top"]) / below)
    return max(min(LEAST_ROWS, rest // 2), min(height, rest - min(LEAST_ROWS, rest // 2)))


def _most(kinds: Mapping[str, Kind], names: Sequence[str], rest: int) -> int:
    """Rows, frames included, beyond which none of them has more to show; `rest` if one has no limit."""
    needed = [kinds[name].rows for name in names]
    return max((rest if rows is None else rows + 2 for rows in needed), default=0)


def _layer_rows(kinds: Mapping[str, Kind], names: Sequence[str], layers: int) -> int:
    """Rows of the layer panels, frame included, with one row per layer; 0 if there are none."""
    return layers + 2 + max(kinds[name].foot for name in names) if names else 0


def _more(kinds: Mapping[str, Kind], names: Sequence[str]) -> int:
    """Rows that one of them can fill beyond those that it needs."""
    return max((kinds[name].more for name in names), default=0)


def _wanted(kinds: Mapping[str, Kind], rest: int, layers: int, groups: Mapping[str, Sequence[str]], stacked: bool) -> int:
    """Rows that the layer panels and those beside or below them can use."""
    needed, side = _layer_rows(kinds, groups["layers"], layers or rest), _most(kinds, groups["side"], rest)
    if not needed:
        return side
    return needed + side if stacked else needed


def _is_stacked(kinds: Mapping[str, Kind], groups: Mapping[str, Sequence[str]], count: int, width: int, rest: int) -> bool:
    """Whether `count` layers leave so much room below them and the top panels that the others go there rather than beside them.

    Not where they take at most half of a wide screen and more than half of its height, nor for one small panel without room for two.
    """
    layers, top, side = groups["layers"], groups["top"], groups["side"]
    needed = _layer_rows(kinds, layers, count or rest) if top else (count or rest) + 2  # the feet may go
    left = rest - needed - (min(_most(kinds, top, rest), max(rest // 3, 9)) if top else 0)
    most = _most(kinds, side, rest)
    if not (layers and side) or left < min(STACKED_ROWS if top else ALONE_ROWS, most):
        return False
    if top and len(side) == 1 and most <= SMALL_ROWS and rest - needed - _most(kinds, top, rest) < 2 * STACKED_ROWS:
        return False
    narrow = _side_width(width, sum(kinds[name].weight for name in groups["layers"])) * 2 >= width
    return not (narrow and width >= WIDE and needed * 2 > rest)


def _middle(
    kinds: Mapping[str, Kind],
    groups: Mapping[str, Sequence[str]],
    count: int,
    y: int,
    width: int,
    height: int,
    stacked: bool,
    grown: int = 0,
) -> list[Tile]:
    """The layer panels in one row, `grown` rows taller than they must be, and the others beside them, or `stacked` below them."""
    layers, side = groups["layers"], groups["side"]
    needed = _layer_rows(kinds, layers, count or height) + grown
    if stacked and layers and height - needed < ALONE_ROWS:  # what is below is worth more than what stands under the layers
        needed = max((count or height) + 2, min(needed, height - SIDE_ROWS))
    if not layers or stacked:
        high = _layer_share(kinds, layers, side, needed, height) if layers else 0
        rows = in_rows(side, math.ceil(len(side) / 3), height - high)
        return layer_row(kinds, layers, y, width, high) + stacked_rows(kinds, rows, 0, y + high, width, height - high)
    side_width = _side_width(width, sum(kinds[name].weight for name in layers)) if side else 0
    across = max(1, side_width // NARROW)
    rows = in_rows(side, max(height // SIDE_ROWS, math.ceil(len(side) / across)), height)
    beside = stacked_rows(kinds, rows, width - side_width, y, side_width, height)
    return layer_row(kinds, layers, y, width - side_width, height) + beside


def _layer_share(kinds: Mapping[str, Kind], layers: Sequence[str], side: Sequence[str], needed: int, height: int) -> int:
    """The rows that the layer panels need; more or fewer where the user made them, or those below, taller."""
    share = max(kinds[name].tall for name in layers) / max(kinds[name].tall for name in side)
    return max(LEAST_ROWS, min(round(needed * share), height - LEAST_ROWS))


def _side_width(width: int, weight: float) -> int:
    """A good quarter for the panels beside the layer panels; up to half if those are few."""
    share = 1 - 0.3 * weight
    return round(width * min(share, 0.5)) if share > 0.27 else min(max(NARROW, round(width * 0.27)), 48)


def has_layout_bar(height: int) -> bool:
    """Whether there is room for the line that names the layouts."""
    return height >= LEAST_WITH_BAR


def body_rows(height: int, taken: int) -> int:
    """Rows of the panels: those of the terminal less the first and last line, that of the layouts, and `taken` rows of messages."""
    return max(1, height - 2 - has_layout_bar(height) - taken)


def place_all(
    kinds: Mapping[str, Kind],
    layers: int,
    width: int,
    height: int,
    grid_rows: int | None,
    focused: str,
    maximised: bool,
    taken: int = 0,
    alone: bool | None = None,
) -> list[Tile]:
    """Boxes for a terminal of `width` x `height`, `taken` rows of it messages. `alone`: the focused panel only; None: on a small screen."""
    alone = maximised or (single(width, height) if alone is None else alone)
    tiles = arrange(kinds, layers, width, body_rows(height, taken), grid_rows, focused if alone else None)
    return [replace(tile, maximised=maximised, shown=frozenset(kinds)) for tile in tiles]
