"""asciicast v3: the text as the app shows it, token by token, for asciinema's players. Each token takes as long as it did, or longer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style

from openmav.paint import PALETTES, Line, fit, ink, one_line, pad_line
from openmav.panels import draw
from openmav.plugins import registry
from openmav.view import View

if TYPE_CHECKING:
    from openmav.recording.export.run import Run

COLUMNS, ROWS = 80, 24
LEAST = 0.1  # seconds of a token, as in the app
STAYS = 3.0  # seconds of the last frame
TEXT_ROWS, TIMELINE_ROWS = 17, 4
CLEAR, SHOW_CURSOR = "\x1b[?25l\x1b[2J", "\x1b[?25h"


def write(run: Run, out: BinaryIO) -> None:
    title = one_line(run.info.name)
    _line(out, {"version": 3, "term": {"cols": COLUMNS, "rows": ROWS, "type": "xterm-256color"}, "title": title})
    out.write(f"# one frame a token, {LEAST:g} s at least\n".encode())
    view, shown = View(), [""] * ROWS
    _line(out, [0.0, "o", CLEAR])
    waits = [0.0, *(max(step.timing.total, LEAST) for step in run.now.steps)]
    for count, seconds in enumerate(waits):
        view = view.updated(replace(run.now, steps=run.now.steps[:count]))
        frame = [_ansi(line) for line in frame_of(view, title, len(run.now.steps))]
        changed = "".join(f"\x1b[{row};1H{new}\x1b[K" for row, (old, new) in enumerate(zip(shown, frame), 1) if new != old)
        _line(out, [round(seconds if seconds == seconds else LEAST, 4), "o", changed])
        shown = frame
    _line(out, [STAYS, "o", SHOW_CURSOR])


def frame_of(view: View, title: str, tokens: int) -> Iterator[Line]:
    """The rows of the screen: which model and token, the panel of the text, the timeline."""
    palette = PALETTES[view.theme]
    quiet = ink(palette, "secondary")
    text = draw(registry.load("panels", "generated_text"), view, COLUMNS, TEXT_ROWS)
    count = f"token {view.cursor} of {tokens} " if view.step is not None else f"{tokens} tokens "
    yield pad_line(
        [Segment(" mav  ", ink(palette, "text", bold=True)), Segment(fit(title, 48).rstrip(), quiet)], [Segment(count, quiet)], COLUMNS
    )
    yield [Segment("─" * COLUMNS, ink(palette, "frame"))]
    yield from _rows(text.lines, TEXT_ROWS)
    yield pad_line([], text.legend, COLUMNS) if text.legend is not None else []
    yield from _rows(draw(registry.load("panels", "timeline"), view, COLUMNS, TIMELINE_ROWS).lines, TIMELINE_ROWS)


def _rows(lines: Any, height: int) -> Iterator[Line]:
    drawn = [line if isinstance(line, list) else [Segment(line)] for line in lines][:height]
    yield from [*drawn, *([] for _ in range(height - len(drawn)))]


def _ansi(line: Line) -> str:
    styles = ((segment.style if isinstance(segment.style, Style) else Style.null(), segment.text) for segment in line)
    return "".join(style.render(text, color_system=ColorSystem.TRUECOLOR) for style, text in styles)


def _line(out: BinaryIO, content: Any) -> None:
    out.write(json.dumps(content, allow_nan=False, separators=(",", ":")).encode() + b"\n")
