"""A sweep: each head ablated alone, for the token that is shown."""

from __future__ import annotations

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.protocol.commands import SweepHeads

PANEL = "sweep"


class SweepController:
    """Starts sweeps, and gives the panel that shows them the whole screen."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels

    def start(self) -> None:
        context = self._context
        step = context.view.step
        if not context.ready(SweepHeads, "sweeps") or not context.has_token() or step is None:
            return
        if not context.view.heads:
            context.notify("this model has no attention heads to ablate")
            return
        if PANEL not in self._panels.modules:
            self._panels.add(PANEL)
        self._panels.focused, self._panels.maximised = PANEL, True
        context.send(SweepHeads(step.index, context.view.branch))
        context.notify(f"ablating {context.view.layers * context.view.heads} heads one by one; {context.key('escape')} stops")
        context.poll()
