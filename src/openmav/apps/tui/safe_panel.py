"""Panels that are not mav's: their output is checked and sanitised, and an error in one stays in it."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from types import ModuleType

from rich.segment import Segment

from openmav import panels
from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.panel_runner import runner_of
from openmav.errors import words_of
from openmav.paint import Line, one_line, printable
from openmav.view import View

LONGEST = 4096  # more than any terminal is wide, also in characters that make one cell together
LAST_LINES = 14  # of a traceback


def is_own(module: ModuleType) -> bool:
    """Whether the panel is not one of mav's."""
    return not module.__name__.startswith("openmav.panels.")


def checked_lines(lines: Iterable[object], height: int) -> list[Line]:
    """At most `height` lines; a line is a text or a list of Rich segments.

    Raises TypeError for anything else.
    """
    return [checked_line(line) for line in islice(lines, height)]


def checked_line(line: object) -> Line:
    """One line without characters that move the cursor, of at most LONGEST parts and characters in each."""
    if isinstance(line, str):
        return [Segment(_flat(line))]
    if isinstance(line, list | tuple) and not isinstance(line, Segment) and all(isinstance(part, Segment) for part in line[:LONGEST]):
        return [Segment(_flat(part.text), part.style) for part in line[:LONGEST]]
    raise TypeError(f"a line must be a text or a list of Rich segments, not {type(line).__name__}")


def _flat(text: str) -> str:
    return printable(text[:LONGEST]).replace("\n", "⏎")


@dataclass(frozen=True)
class DrawnPanel:
    """What a panel drew for one box."""

    title: str
    note: str
    lines: list[Line]
    legend: Line | None


_last: weakref.WeakKeyDictionary[ModuleType, DrawnPanel] = weakref.WeakKeyDictionary()


def draw_own(module: ModuleType, view: View, place: Tile) -> DrawnPanel:
    """The newest output of the panel. Raises whatever the panel raised."""
    runner, last = runner_of(module), _last.get(module)
    newest = runner.newest(lambda: _draw(module, view, place), last)
    if newest is None:
        return DrawnPanel(one_line(str(module.TITLE)), "drawing", [], None)
    _last[module] = newest
    return replace(newest, note=f"slow: {runner.seconds:.1f} s, drawn less often") if runner.seconds else newest


def _draw(module: ModuleType, view: View, place: Tile) -> DrawnPanel:
    width, height = place.inner
    drawn = panels.draw(module, view, width, height, place.width - 5, gutter=place.gutter)
    legend = checked_line(drawn.legend) if drawn.legend is not None else None
    return DrawnPanel(_flat(str(drawn.title)), _flat(str(drawn.note)), checked_lines(drawn.lines, height), legend)


def is_under_way(modules: Iterable[ModuleType]) -> bool:
    """Whether one of these panels has more to show though nothing else has changed."""
    return any(runner_of(module).under_way for module in modules if is_own(module))


def failure(module: ModuleType, view: View, width: int, height: int) -> str:
    """The last lines of the traceback if the panel fails now, else ""."""

    def draw() -> None:
        checked_lines(panels.draw(module, view, width, height).lines, height)

    try:
        runner_of(module).once(draw)
    except BaseException as error:
        lines = "".join(traceback.format_exception(error)).rstrip().split("\n")
        return "\n".join(printable(line) for line in lines[-LAST_LINES:])
    return ""


def picked(module: ModuleType, view: View, place: Tile, x: int, y: int) -> tuple[View, str]:
    """The View after a click inside of the panel, and what failed in one line; the same View if the panel takes no clicks."""
    if not hasattr(module, "pick"):
        return view, ""
    local = replace(view, maximised=place.maximised)
    try:
        picked_view = runner_of(module).once(lambda: panels.pick(module, local, *place.inner, x, y, gutter=place.gutter))
    except BaseException as error:
        return view, f"the panel '{one_line(str(module.TITLE))}' failed at a click: {words_of(error, kind=True)}"
    return (
        (replace(picked_view, maximised=view.maximised), "")
        if isinstance(picked_view, View)
        else (view, f"the panel '{one_line(str(module.TITLE))}' returned no View after a click")
    )
