"""Which preview of a sampling is requested from the source: that of a form, else that of what holds from the next token on."""

from __future__ import annotations

from openmav.apps.tui.controllers.context import Context
from openmav.protocol.commands import PreviewSampling
from openmav.settings.sampling import Sampling


class PreviewRequests:
    """Requests a preview whenever another one is due. `draft` is the sampling that is typed in a form; None: there is no form."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.draft: Sampling | None = None
        self._requested: tuple[object, ...] | None = None  # the sampling and the step that it was requested for

    def update(self) -> None:
        """Sends a request if one is due; called before each frame."""
        view = self._context.view
        newest = view.steps[-1] if view.steps else None
        if newest is None or (self.draft is None and (view.running or newest.sampling == view.sampling)):
            self._requested = None
            return
        sampling = self.draft or view.sampling
        place = (view.branch, view.interventions, newest.index, newest.token_id, len(newest.candidates))
        due = (sampling, () if view.running else place)  # while tokens come, that of the first one stays
        if due != self._requested and self._context.send(PreviewSampling(sampling)):
            self._requested = due
