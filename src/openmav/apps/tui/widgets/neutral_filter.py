"""The last boundary before the terminal: every line of every widget passes it."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from openmav.paint.text import without_power


class NeutralFilter(LineFilter):
    """Takes characters out that have power over a terminal, and keeps the cells that they were measured with.

    What mav draws shows them as symbols before it comes here (openmav.paint.text); this holds for widgets that somebody forgot, and for
    Textual's own.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(without_power(text), style, control) for text, style, control in segments]
