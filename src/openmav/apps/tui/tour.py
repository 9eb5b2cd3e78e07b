"""The guided tour: the real app on a real model, with a box that tells, asks for a key, and says what the model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from openmav.apps.options import AppOptions
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.draw import ground
from openmav.apps.tui.keymap import keys_of
from openmav.apps.tui.layout import SMALL, Tile, arrange
from openmav.apps.tui.tour_stops import STOPS, Moment, first_key
from openmav.apps.tui.widgets import Lines, Notice
from openmav.paint import Line, cells, ink, tile
from openmav.panels import needs
from openmav.panels._view import View
from openmav.source import Pause, Source, Want

NEXT, PREVIOUS = "tour_next", "tour_previous"
TOUR_KEYS = {NEXT: ("n", "f8", "ctrl+n"), PREVIOUS: ("p", "f7", "ctrl+b")}
LEAST_BODY = 8  # rows of panels beside the box; below that, one panel at a time


def wrapped(text: str, width: int) -> list[str]:
    """The words in rows of at most `width` cells."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if cells(longer) <= width or not rows[-1]:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def _free(own: Mapping[str, str]) -> dict[str, str]:
    """The tour's own keys, on others where the reader needs those for something else."""
    taken = {key.strip() for keys in own.values() for key in keys.split(",")}
    return {name: next(key for key in keys if key not in taken) for name, keys in TOUR_KEYS.items()}


class TourBox(Lines):
    """Where the tour speaks."""

    def show(self, view: View, at: int, answer: str | None, width: int, keys: Mapping[str, str]) -> int:
        """Shows a stop, with the model's answer where there is one; the rows that it takes. `keys` are those of all bindings."""
        stop, palette = STOPS[at], view.palette
        room, names = max(1, width - 4), {name: first_key(own) for name, own in keys.items()}
        text = [(row, ink(palette, "text")) for row in wrapped(stop.text.format_map(names), room)]
        if view.status in ("loading", "prefill"):
            text += [("One moment: the model is being loaded.", ink(palette, "secondary"))]
        elif answer is None:
            text += [(row, ink(palette, "key", bold=True)) for row in wrapped(f"▸ {stop.ask.format_map(names)}", room)]
        else:
            text += [(row, ink(palette, "accent")) for row in wrapped(f"✓ {answer}", room)]
        lines: list[Line] = [[Segment(row, style)] for row, style in text]
        on = "" if at + 1 == len(STOPS) else f"{names[NEXT]} {'goes on' if answer is not None else 'skips this'} · "
        note = f"{on}{f'{names[PREVIOUS]} goes back · ' if at else ''}{names['quit']} leaves"
        title = f"Tour {at + 1} of {len(STOPS)}: {stop.title}"
        height = len(lines) + 2
        self.styles.height = height
        self.show_lines(tile(lines, width, height, palette, title, note, focused=True), width, ground(view))
        return height


class TourApp(MavApp):
    """MavApp with stops. All its keys do what they always do, also those that the reader put elsewhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "tour(1)", "the next stop of the tour", id=NEXT, show=False),
        Binding("p", "tour(-1)", "the stop before", id=PREVIOUS, show=False),
    ]

    def __init__(self, source: Source, options: AppOptions) -> None:
        super().__init__(source, replace(options, keys={**options.keys, **_free(options.keys)}))
        self.at = 0
        self.answer: str | None = None  # what the model answered at this stop
        self.begun = self.view

    def compose(self) -> ComposeResult:
        for widget in super().compose():
            if isinstance(widget, Notice):
                yield TourBox()
            yield widget

    def _arrive(self) -> None:
        """At a stop: its panels, and all that is done from now on counts."""
        stop = STOPS[self.at]
        self.answer, self.kinds, self.alone, self.focus_name = None, {}, False, stop.focus
        self.begun, self.note = self.view, ""
        self.show_panels(stop.panels)

    def action_tour(self, by: int) -> None:
        if 0 <= self.at + by < len(STOPS):
            if self.view.status == "running":
                self._send(Pause())
            self.at += by
            self.view = self.view.at_step(len(self.view.steps) - 1)
            self._arrive()

    def action_escape(self) -> None:
        self.exit()

    def _watch(self) -> None:
        """Whether what the stop asked for has been done; once done, it stays so."""
        stop, moment = STOPS[self.at], Moment(self.begun, self.view, tuple(self.modules))
        if stop.done(moment):
            self.answer = stop.answer(moment)

    def _want(self) -> None:
        """All that any stop shows, from the first token on: a stop that is reached while paused has its numbers at once."""
        measures = needs((*self.modules, *(panel for stop in STOPS for panel in stop.panels)))
        if self._wanted is None or not measures <= self._wanted.measures:
            self._wanted = Want(measures)
            self._send(self._wanted)

    def rows_taken(self, base: Screen, width: int) -> int:
        self._watch()
        return super().rows_taken(base, width) + base.query_one(TourBox).show(
            self.view, self.at, self.answer, width, keys_of(self.view.options.keys)
        )

    def places(self, taken: int) -> list[Tile]:
        """The box takes much of a small screen: panels stay side by side as long as there is any room."""
        width, height = self.extent
        body = max(1, height - 2 - taken)
        alone = self.focus_name if self.alone or width < SMALL[0] or body < LEAST_BODY else None
        return arrange(self.kinds, self.view.layers, width, body, None, alone)
