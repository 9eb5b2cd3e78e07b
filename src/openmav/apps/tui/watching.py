"""What a reader watches, and where the run is to pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from textual.app import App

from openmav.panels._view import View
from openmav.source import Command, SetBreakpoints, Source

if TYPE_CHECKING:
    from openmav.apps.tui.app import MavApp

PANEL = "watches"  # its measures are wanted while the form is open


class Watching(App[None]):
    """The part of the app that keeps breakpoints and watches."""

    view: View
    source: Source
    asked_for: tuple[str, ...]

    def redraw(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def _send(self, command: Command) -> bool:
        raise NotImplementedError

    @property
    def can_break(self) -> bool:
        """Whether the source pauses where a condition holds."""
        return SetBreakpoints.__name__ in self.source.can

    def with_watched(self, texts: Mapping[str, bool]) -> View:
        """The view with exactly these: {text: whether it stops the run}."""
        stops = tuple(text for text, stop in texts.items() if stop)
        return replace(self.view, breakpoints=stops, watches=tuple(text for text, stop in texts.items() if not stop))

    def set_watched(self, texts: Mapping[str, bool]) -> None:
        """Exactly these from now on."""
        before, self.view = self.view.breakpoints, self.with_watched(texts)
        if self.view.breakpoints != before:
            self._send(SetBreakpoints(self.view.breakpoints))
        self.redraw()

    def action_watches(self) -> None:
        """The form of breakpoints and watches."""
        from openmav.apps.tui.breaks import BreaksScreen

        def done(_: None) -> None:
            self.asked_for = ()
            self.redraw()

        self.asked_for = (PANEL,)
        self.redraw()
        self.push_screen(BreaksScreen(cast("MavApp", self)), done)
