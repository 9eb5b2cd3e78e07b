"""Breakpoints, which pause the run, and watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.measures import MeasureRequests
from openmav.protocol.commands import SetBreakpoints
from openmav.view import View

PANEL = "watches"  # its measures are requested while the form is open


class WatchesController:
    """Keeps breakpoints and watches."""

    def __init__(self, context: Context, measures: MeasureRequests) -> None:
        self._context, self._measures = context, measures

    @property
    def view(self) -> View:
        return self._context.view

    @property
    def can_break(self) -> bool:
        """Whether the source pauses at a breakpoint."""
        return self._context.takes(SetBreakpoints)

    def with_watched(self, texts: Mapping[str, bool]) -> View:
        """The view with exactly these: {text: whether it pauses the run}."""
        stops = tuple(text for text, stop in texts.items() if stop)
        return replace(self.view, breakpoints=stops, watches=tuple(text for text, stop in texts.items() if not stop))

    def set_watched(self, texts: Mapping[str, bool]) -> None:
        """Sets exactly these."""
        context, before = self._context, self.view.breakpoints
        context.view = self.with_watched(texts)
        if context.view.breakpoints != before:
            context.send(SetBreakpoints(context.view.breakpoints))
        context.redraw()

    def open(self) -> None:
        """The form of breakpoints and watches."""
        from openmav.apps.tui.screens.breakpoints import BreakpointsScreen

        def done(_: None) -> None:
            self._measures.hidden_panels = ()
            self._context.redraw()

        self._measures.hidden_panels = (PANEL,)
        self._context.redraw()
        self._context.open(BreakpointsScreen(self), done)
