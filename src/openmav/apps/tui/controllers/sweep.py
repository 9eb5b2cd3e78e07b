"""A sweep: each head, sub-block or layer ablated alone, for the token that is shown."""

from __future__ import annotations

from typing import cast, get_args

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.paint import PALETTES
from openmav.protocol.commands import SweepSites
from openmav.settings.interventions import How
from openmav.settings.sites import SWEPT_NAMES, Swept

PANEL = "sweep"
HOW: dict[How, str] = {"zero": "adds nothing", "mean": "adds its mean over the text before the token"}


class SweepController:
    """Asks for what is ablated, starts the sweep, and gives the panel that shows it the whole screen."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels

    def start(self) -> None:
        from openmav.apps.tui.screens.forms import ListScreen

        context = self._context
        if not context.ready(SweepSites, "sweeps") or not context.has_token():
            return
        kinds = [what for what in get_args(Swept) if what != "heads" or context.view.heads]
        rows = [(f"{what} {how}", f"{SWEPT_NAMES[what]}: each {words}") for what in kinds for how, words in self._ways(what)]
        context.open(ListScreen("Sweep: ablate each alone", rows, {}, PALETTES[context.view.theme], enter="starts"), self._chosen)

    def _ways(self, what: Swept) -> list[tuple[How, str]]:
        return [("zero", "is skipped")] if what == "layers" else list(HOW.items())

    def _chosen(self, answer: tuple[str, str] | None) -> None:
        context = self._context
        step = context.view.step
        if answer is None or step is None:
            return
        what, how = answer[1].split()
        if PANEL not in self._panels.modules:
            self._panels.add(PANEL)
        self._panels.focused, self._panels.maximised = PANEL, True
        context.send(SweepSites(step.index, context.view.branch, cast(Swept, what), cast(How, how)))
        count = context.view.layers * (context.view.heads if what == "heads" else 1)
        context.notify(f"ablating {count} {SWEPT_NAMES[cast(Swept, what)]} one by one; {context.key('escape')} stops")
        context.poll()
