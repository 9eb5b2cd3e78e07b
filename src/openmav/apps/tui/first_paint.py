"""The first paint: the empty screen, drawn before Textual is imported, so that the user sees it at once.

The app then draws the same lines in the same places. Where the terminal is not one that surely understands this, nothing
is drawn and the app's own first paint is the first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.segment import Segment

from openmav.apps.tui.kinds import for_view, kinds_of
from openmav.apps.tui.layout import place_all
from openmav.apps.tui.tiles import draw_screen, ground, theme_of
from openmav.paint import Line
from openmav.plugins import registry
from openmav.view import View
from openmav.view.options import AppOptions

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?1049l\x1b[?25h"  # the alternate screen without a cursor, and back


@contextmanager
def first_paint(can: frozenset[str], options: AppOptions) -> Iterator[None]:
    """Draws the empty screen and holds it while the app is made; leaves the terminal as it was if that fails.

    Raises UsageError for an unknown panel or theme, before anything is drawn.
    """
    file = _terminal()
    if file is None:
        yield
        return
    width, height = os.get_terminal_size(file.fileno())
    lines = empty_screen(can, options, width or 80, height or 24)  # a terminal that does not know its size says 0
    try:
        file.write(ENTER + _codes(lines, file))
        file.flush()
        yield
    except BaseException:
        file.write(LEAVE)
        file.flush()
        raise


def empty_screen(can: frozenset[str], options: AppOptions, width: int, height: int) -> list[Line]:
    """What the app shows before the model is known: `height` lines of `width` cells."""
    modules = {name: registry.load("panels", name) for name in options.panels}
    kinds = kinds_of(modules, options.sizes.get(options.layout, {}))
    view = View(options=options, layout=options.shown_layout, theme=theme_of(options))
    focused = next(iter(modules))
    places = place_all(for_view(kinds, modules, view), 0, width, height, options.grid_rows, focused, False)
    lines = draw_screen(modules, view, places, focused, can, width, height)[:height]
    return [list(Segment.apply_style(line, ground(view))) for line in lines]


def _terminal() -> TextIO | None:
    """The file that Textual will draw on, where it is a terminal that takes escape codes."""
    file = sys.__stderr__
    if file is None or not file.isatty() or os.name == "nt" or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return None
    return file


def _codes(lines: Sequence[Line], file: TextIO) -> str:
    """The lines with escape codes, each put to its row, in as many colours as the terminal has."""
    from rich.console import Console
    from rich.segment import Segments

    from openmav.paint.text import without_power

    console = Console(file=file, force_terminal=True, legacy_windows=False)
    text = ""
    for row, line in enumerate(lines, 1):
        with console.capture() as captured:
            safe = [Segment(without_power(segment.text), segment.style) for segment in line]
            console.print(Segments(safe), end="", soft_wrap=True)
        text += f"\x1b[{row};1H{captured.get()}"
    return text
