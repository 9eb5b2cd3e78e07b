"""The box with the text of the tour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.segment import Segment

from openmav.apps.tui import keys as table
from openmav.apps.tui.tiles import ground
from openmav.apps.tui.tour.steps import TOUR_STEPS
from openmav.apps.tui.widgets.lines import Lines
from openmav.paint import PALETTES, Line, ink, tile, wrap_words
from openmav.view import View


def first_key(keys: str) -> str:
    """The display name of a binding's first key; a lone dot is easily overlooked."""
    key = table.first_key(keys)
    return ". (a dot)" if key == "." else key


class TourBox(Lines):
    """The box with the text of the tour."""

    def show(self, view: View, at: int, answer: str | None, width: int, keys: Mapping[str, str], remarks: Sequence[str] = ()) -> int:
        """Shows a step of the tour, with the result if there is one; returns the rows that it takes.

        `keys` are those of all bindings; `remarks` follow the step's text.
        """
        step, palette = TOUR_STEPS[at], PALETTES[view.theme]
        room, names = max(1, width - 4), {name: first_key(own) for name, own in keys.items()}
        text = [(row, ink(palette, "text")) for row in wrap_words(" ".join((step.text.format_map(names), *remarks)), room)]
        if view.status in ("loading", "prefill"):
            text += [("The model is still loading.", ink(palette, "secondary"))]
        elif answer is None:
            text += [(row, ink(palette, "key", bold=True)) for row in wrap_words(f"▸ {step.ask.format_map(names)}", room)]
        else:
            text += [(row, ink(palette, "accent")) for row in wrap_words(f"✓ {answer}", room)]
        lines: list[Line] = [[Segment(row, style)] for row, style in text]
        ahead = "on to" if answer is not None else "skip to"  # not "next", which is the model's next token
        hints = [f"{names['tour_next']} {ahead} step {at + 2}"] if at + 1 < len(TOUR_STEPS) else []
        hints += [f"{names['tour_previous']} back to step {at}"] if at else []
        note = " · ".join([*hints, f"{names['quit']} quit"])
        title = f"Tour {at + 1} of {len(TOUR_STEPS)}: {step.title}"
        height = len(lines) + 2
        self.styles.height = height
        self.show_lines(tile(lines, width, height, palette, title, note, focused=True), width, ground(view))
        return height
