"""Panels in their frames, and the whole screen as lines; nothing here needs Textual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from rich.segment import Segment
from rich.style import Style

from openmav.apps.options import AppOptions
from openmav.apps.tui import bars
from openmav.apps.tui.layout import Tile
from openmav.apps.tui.own import checked_line, checked_lines, is_own
from openmav.errors import UsageError
from openmav.paint import PALETTES, Line, Palette, fit, ink, one_line, tile
from openmav.panels._view import View
from openmav.registry import unknown

LOOKS = [name for name, palette in PALETTES.items() if palette.color]


def palette_of(options: AppOptions) -> Palette:
    """The palette that the reader asked for; without colour there is but one.

    Raises UsageError for an unknown theme.
    """
    if not options.color:
        return PALETTES["mono"]
    if options.theme is not None and options.theme not in LOOKS:
        raise UsageError(unknown("theme", options.theme, LOOKS))
    return PALETTES[options.theme or LOOKS[0]]


def ground(view: View) -> Style:
    """What all lines stand on; nothing where the terminal's own colours are kept."""
    return ink(view.palette, "text", view.palette.ground) if view.palette.color else Style.null()


def draw_panel(module: ModuleType, view: View, place: Tile, focused: bool) -> list[Line]:
    """The whole tile of a panel. An error of the panel's own shows in it and stops nothing else."""
    width, height = place.inner
    title, note, legend = str(module.TITLE), "", None
    try:
        title = module.heading(view, place.width - 5) if hasattr(module, "heading") else title
        note = module.note(view, width, height) if hasattr(module, "note") else ""
        legend = module.legend(view, width) if hasattr(module, "legend") else None
        lines = module.render(view, width, height)
        if is_own(module):
            title, note, lines = str(title), str(note), checked_lines(lines, height)
            legend = checked_line(legend) if legend is not None else None
    except Exception as error:
        lines, legend = failure_lines(view, error, width), None
    return tile(lines, place.width, place.height, view.palette, title, note, focused, place.edges, legend)


def failure_lines(view: View, error: Exception, width: int) -> list[Line]:
    """What a panel shows that failed."""
    text = f"this panel failed: {type(error).__name__}: {one_line(str(error))}  (? says more)"
    rows = [text[at : at + max(width, 1)] for at in range(0, len(text), max(width, 1))]
    return [[Segment(fit(row, width), ink(view.palette, "warning"))] for row in rows]


def draw_screen(
    modules: Mapping[str, ModuleType], view: View, places: Sequence[Tile], focused: str, can: frozenset[str], width: int
) -> list[Line]:
    """The first line, all tiles, the last line: every row of the screen."""
    rows: dict[int, list[tuple[int, Line]]] = {}
    for place in places:
        local = replace(view, gutter=place.gutter)
        for y, line in enumerate(draw_panel(modules[place.name], local, place, place.name == focused), place.y):
            rows.setdefault(y, []).append((place.x, line))
    body = [[segment for _, line in sorted(rows[y], key=_left) for segment in line] for y in sorted(rows)]
    return [bars.header(view, width), *body, bars.footer(view, bars.abilities(can, modules[focused]), width)]


def _left(part: tuple[int, Line]) -> int:
    return part[0]
