"""Undoing what a key changed beside the text: the panels, their order and sizes, and the interventions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.kinds import Kind
from openmav.protocol.commands import Intervene

MOST = 100  # changes that can be undone


@dataclass(frozen=True)
class Arrangement:
    """The panels as they stand on the screen."""

    kinds: tuple[tuple[str, Kind], ...]
    focused: str
    layout: str
    rearranged: bool


class ChangesController:
    """Keeps what there was before each change. Arrangements are compared from frame to frame, so that no change is missed."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels
        self._before: deque[Arrangement | tuple[str, ...]] = deque(maxlen=MOST)  # panels, or the texts of interventions
        self._shown: Arrangement | None = None

    def observe(self) -> None:
        """Called before each frame."""
        panels, view = self._panels, self._context.view
        kinds = tuple((name, panels.kinds[name]) for name in panels.modules)
        if self._shown is not None and self._shown.kinds != kinds:
            self._before.append(self._shown)
        self._shown = Arrangement(kinds, panels.focused, view.layout, view.rearranged)

    def keep(self, interventions: tuple[str, ...]) -> None:
        """The interventions before a change."""
        self._before.append(interventions)

    def forget(self) -> None:
        """What was changed until now is not undone."""
        self.observe()
        self._before.clear()

    def undo(self) -> None:
        """Undoes the last change."""
        context = self._context
        if not self._before:
            context.notify(f"there is no change of panels or interventions to undo; {context.key('undo')} undoes a token")
            return
        before = self._before.pop()
        if isinstance(before, Arrangement):
            self._restore(before)
            what = "the panels"
        else:
            context.send(Intervene(before))
            context.poll()
            what = "the interventions"
        more = len(self._before)
        context.notify(f"{what} as before{f'; {more} more to undo' if more else ''}")

    def _restore(self, before: Arrangement) -> None:
        self._shown, self._panels.maximised = before, False
        self._panels.focused = before.focused
        self._panels.show((name for name, _ in before.kinds), dict(before.kinds), before.layout, rearranged=before.rearranged)
