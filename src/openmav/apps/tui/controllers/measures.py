"""Which measures are requested from the source: those that the panels show now."""

from __future__ import annotations

import math

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.panels import needs
from openmav.protocol.commands import Want
from openmav.record import lacking

CANDIDATES_PANEL, MANY = "top_predictions", 200  # maximised, it asks for so many candidates
LISTS = (CANDIDATES_PANEL, "token_card")  # mav's own panels that say how many candidates they have room for
TALL = 20  # rows: where it is higher than a run's candidates, it asks for as many as fill it, in whole times of this


class MeasureRequests:
    """Requests measures whenever they differ from those that were requested last."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self.panels = context, panels
        self.hidden_panels: tuple[str, ...] = ()  # panels that are not shown, but whose measures are requested
        self._requested: Want | None = None

    def update(self) -> None:
        """Sends a request if one is due; called before each frame."""
        wanted = self.wanted(self._requested)
        if wanted != self._requested:
            self._requested = wanted
            self._context.send(wanted)

    def wanted(self, requested: Want | None) -> Want:
        """What to request now; `requested` is what was requested last."""
        view, modules = self._context.view, self.panels.modules
        focused = any(getattr(module, "FOCUS", False) for module in modules.values())
        measures, layer = needs((*modules, *self.hidden_panels), view.modes, view), view.layer if focused else None
        candidates = self._candidates()
        return Want(measures, layer, view.cursor if self._is_lacking(measures, layer, candidates) else None, candidates)

    def _candidates(self) -> int:
        """How many candidates the panels have room for, where that is more than a run computes anyway."""
        view, rows = self._context.view, 0
        for name, module in self.panels.modules.items():
            place = self.panels.places.get(name)
            if place is None or name not in LISTS:
                continue
            if place.maximised and name == CANDIDATES_PANEL:
                return MANY
            rows = max(rows, module.candidates(view, *place.inner))
        return min(MANY, math.ceil(rows / TALL) * TALL) if rows > TALL + 1 else 0

    def _is_lacking(self, measures: frozenset[str], layer: int | None, candidates: int) -> bool:
        """Whether an earlier token is shown for which some of this was not computed."""
        view = self._context.view
        step, info = view.step, view.info
        if step is None or info is None or view.following:
            return False
        return len(step.candidates) < min(candidates, info.vocab) or bool(lacking(step, measures, layer, info.missing))
