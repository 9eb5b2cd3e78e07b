"""Boxes side by side and one above the other: lengths in whole cells, shared by weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openmav.apps.tui.kinds import Kind
from openmav.paint import CLOSED, Edges

LEAST_ROWS = 3  # of a tile: its frame and one line


@dataclass(frozen=True)
class Tile:
    """A panel's box, frame included, in cells of the body."""

    name: str
    x: int
    y: int
    width: int
    height: int
    edges: Edges = CLOSED
    gutter: bool = True
    maximised: bool = False  # the user gave it the whole screen
    shown: frozenset[str] = frozenset()  # the panels that are shown, this one included

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height inside of the frame."""
        return max(0, self.width - self.edges.inset), max(0, self.height - 2)


def split(total: int, weights: Sequence[float]) -> list[int]:
    """A length in whole cells, shared by weight; the parts add up to it."""
    ends = [round(total * sum(weights[: at + 1]) / sum(weights)) for at in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends)]


def in_row(kinds: Mapping[str, Kind], names: Sequence[str], x: int, y: int, width: int, height: int) -> list[Tile]:
    """Boxes side by side that share a width by weight."""
    tiles = []
    for name, wide in zip(names, split(width, [kinds[name].weight for name in names])):
        tiles.append(Tile(name, x, y, wide, height))
        x += wide
    return tiles


def stacked_rows(kinds: Mapping[str, Kind], rows: Sequence[Sequence[str]], x: int, y: int, width: int, height: int) -> list[Tile]:
    """Rows of boxes that share a height by how tall they are; one with too few rows for what it must show has some of the tallest."""
    tiles = []
    shared = split(height, [max(kinds[name].tall for name in row) for row in rows])
    least = [max(kinds[name].least for name in row) + 2 for row in rows]
    for at, _ in enumerate(rows):
        while shared[at] < least[at] and (spare := [high - max(few, LEAST_ROWS) for high, few in zip(shared, least)]) and max(spare) > 0:
            shared[spare.index(max(spare))] -= 1
            shared[at] += 1
    for row, high in zip(rows, shared):
        tiles += in_row(kinds, row, x, y, width, high)
        y += high
    return tiles


def layer_row(kinds: Mapping[str, Kind], names: Sequence[str], y: int, width: int, height: int) -> list[Tile]:
    """Layer panels side by side in one frame; the first one has the layers' numbers."""
    label = 4  # cells of the numbers
    tiles = []
    for at, tile in enumerate(in_row(kinds, names, 0, y, width - label, height)):
        edges = Edges(left_open=at > 0, right_open=at + 1 < len(names))
        x, wide = (tile.x + label, tile.width) if at else (0, tile.width + label)
        tiles.append(Tile(tile.name, x, y, wide, height, edges, gutter=at == 0))
    return tiles


def in_rows(names: Sequence[str], rows: int, height: int) -> list[list[str]]:
    """The names in at most `rows` rows, as evenly as they go."""
    rows = max(1, min(rows, len(names), height // LEAST_ROWS))
    return [list(names[row * len(names) // rows : (row + 1) * len(names) // rows]) for row in range(rows)] if names else []


def grid(kinds: Mapping[str, Kind], width: int, height: int, rows: int) -> list[Tile]:
    """Row after row from the top left, as wide as the first one; the last row may hold fewer, wider ones."""
    names = list(kinds)
    across = math.ceil(len(names) / max(1, min(rows, len(names))))
    return stacked_rows(kinds, [names[at : at + across] for at in range(0, len(names), across)], 0, 0, width, height)
