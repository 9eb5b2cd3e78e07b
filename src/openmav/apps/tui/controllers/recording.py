"""Recording: started while the run goes on."""

from __future__ import annotations

from openmav.apps.tui.controllers.context import Context
from openmav.errors import UsageError


class RecordingController:
    """Starts a recording where the source can be recorded."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def start(self) -> None:
        record = getattr(self._context.source, "record", None)
        try:
            self._context.notify(record() if record is not None else "this source cannot be recorded")
        except UsageError as error:
            self._context.notify(str(error))
