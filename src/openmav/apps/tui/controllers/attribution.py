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
        self._requested: tuple[tuple[int, int, int | None], str] | None = None  # what was asked last, and by which method

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
        if not context.has_token() or step is None:
            return
        target = step.token_id if minus is not None or row is None else int(step.candidates.token_ids[row])
        if PANEL not in self._panels.modules:
            self._panels.add(PANEL)
        of = (step.index, target, minus)
        method = self._method(of)
        self._requested = of, method
        context.send(Attribute(method, step.index, target, minus, context.view.branch))
        context.poll()

    def _method(self, of: tuple[int, int, int | None]) -> str:
        """The method after that of the last request where it was the same, answered or not; else that of the last answer."""
        last = self._context.view.attribution
        if self._requested is not None and self._requested[0] == of:
            return _next_method(self._requested[1])
        if last is None:
            return METHODS[0]
        return _next_method(last.method) if last.of == of else last.method


def _next_method(method: str) -> str:
    return METHODS[(METHODS.index(method) + 1) % len(METHODS)]
