"""Input attribution: which tokens the shown prediction depends on."""

from __future__ import annotations

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.protocol.commands import Attribute
from openmav.record.attribution_result import METHODS

PANEL = "input_attribution"


class AttributionController:
    """Requests attributions, and adds the panel that shows them."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels

    def of_shown(self) -> None:
        """Of the selected candidate, else of the shown token; requested again, by the next method."""
        self._ask(None)

    def against_candidate(self) -> None:
        """Of the shown token, minus the selected candidate."""
        view = self._context.view
        step, row = view.step, view.candidate
        other = int(step.candidates.token_ids[row]) if step is not None and row is not None else None
        if step is None or other is None or other == step.token_id:
            self._context.notify("select another candidate first (up and down keys): its logit is subtracted from the shown token's")
            return
        self._ask(other)

    def _ask(self, minus: int | None) -> None:
        context = self._context
        step, row = context.view.step, context.view.candidate
        if not context.takes(Attribute):
            context.notify("this source does not support input attribution")
            return
        if step is None:
            context.notify(f"there is no token yet; {context.key('next')} generates one")
            return
        target = step.token_id if minus is not None or row is None else int(step.candidates.token_ids[row])
        if PANEL not in self._panels.modules:
            self._panels.add(PANEL)
        method = self._method((step.index, target, minus))
        context.send(Attribute(method, step.index, target, minus, context.view.branch))
        context.poll()

    def _method(self, requested: tuple[int, int, int | None]) -> str:
        """The next method if the last request was the same, else the last method; the first one to begin with."""
        last = self._context.view.attribution
        if last is None:
            return METHODS[0]
        return METHODS[(METHODS.index(last.method) + 1) % len(METHODS)] if last.of == requested else last.method
