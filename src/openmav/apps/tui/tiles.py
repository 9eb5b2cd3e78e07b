"""Panels in their frames, and the whole screen as lines. Nothing here imports Textual: the first paint draws with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from rich.segment import Segment
from rich.style import Style

from openmav.apps.tui import status_lines
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.keys import key_of
from openmav.apps.tui.layout import has_layout_bar
from openmav.apps.tui.safe_panel import draw_own, is_own
from openmav.errors import UsageError, words_of
from openmav.paint import PALETTES, Line, fit, ink, one_line, tile
from openmav.panels import draw
from openmav.plugins.registry import unknown
from openmav.view import View
from openmav.view.options import AppOptions

THEMES = [name for name, palette in PALETTES.items() if palette.color]


def theme_of(options: AppOptions) -> str:
    """The name of the requested theme; there is only one without colour.

    Raises UsageError for an unknown theme.
    """
    if not options.color:
        return "mono"
    if options.theme is not None and options.theme not in THEMES:
        raise UsageError(unknown("theme", options.theme, THEMES))
    return options.theme or THEMES[0]


def ground(view: View) -> Style:
    """The background of all lines; empty if the terminal's own colours are kept."""
    return ink(PALETTES[view.theme], "text", PALETTES[view.theme].ground) if PALETTES[view.theme].color else Style.null()


def draw_panel(module: ModuleType, view: View, place: Tile, focused: bool) -> list[Line]:
    """The whole tile of a panel. An error in the panel is shown in it and affects nothing else."""
    width, height = place.inner
    view = replace(view, maximised=place.maximised, shown=place.shown)
    title, note, legend, pointer = one_line(str(module.TITLE)), "", None, None
    if is_own(module):
        try:
            drawn = draw_own(module, view, place)
            title, note, lines, legend = drawn.title, drawn.note, drawn.lines, drawn.legend
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the panel's own
            lines = failure_lines(view, error, width)
        return tile(lines, place.width, place.height, PALETTES[view.theme], title, note, focused, place.edges, legend)
    try:
        own = draw(module, view, width, height, place.width - 5, gutter=place.gutter)
        title, note, lines, legend, pointer = own.title, own.note, list(own.lines), own.legend, own.pointer
    except Exception as error:
        lines, legend, pointer = failure_lines(view, error, width), None, None
    return tile(lines, place.width, place.height, PALETTES[view.theme], title, note, focused, place.edges, legend, pointer)


def failure_lines(view: View, error: BaseException, width: int) -> list[Line]:
    """What a panel that failed shows."""
    text = f"this panel failed: {words_of(error, kind=True)}  ({key_of('help', view.options.keys)}: details)"
    rows = [text[at : at + max(width, 1)] for at in range(0, len(text), max(width, 1))]
    return [[Segment(fit(row, width), ink(PALETTES[view.theme], "warning"))] for row in rows]


def draw_screen(
    modules: Mapping[str, ModuleType], view: View, places: Sequence[Tile], focused: str, can: frozenset[str], width: int, height: int
) -> list[Line]:
    """The first line, the layouts, all tiles, the last line: every row of the screen."""
    rows: dict[int, list[tuple[int, Line]]] = {}
    for place in places:
        for y, line in enumerate(draw_panel(modules[place.name], view, place, place.name == focused), place.y):
            rows.setdefault(y, []).append((place.x, line))
    body = [[segment for _, line in sorted(rows[y], key=_left) for segment in line] for y in sorted(rows)]
    head = [status_lines.header(view, width), *([status_lines.layout_bar(view, width)] if has_layout_bar(height) else [])]
    return [*head, *body, status_lines.footer(view, status_lines.abilities(view, can, modules[focused]), width)]


def _left(part: tuple[int, Line]) -> int:
    return part[0]
