"""The live terminal app; `run` shows a source until the reader quits. Textual is imported there, not before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openmav.apps.options import AppOptions
from openmav.apps.tui.first import first_paint

if TYPE_CHECKING:
    from openmav.source import Snapshot, Source


def run(source: Source, options: AppOptions, tour: bool = False) -> Snapshot:
    """Shows the source until the reader quits, and returns its last state; the terminal is then as it was. `tour`: with a guide.

    Raises UsageError for an unknown panel or theme before anything is shown, SystemExit where a signal ended the app, and
    whatever went wrong inside it.
    """
    if not options.color:
        os.environ["NO_COLOR"] = "1"  # Textual asks for it by itself
    with first_paint(source.can, options):
        from openmav.apps.tui.app import MavApp

        if tour:
            from openmav.apps.tui.tour import TourApp

        app = TourApp(source, options) if tour else MavApp(source, options)
    app.run()
    if app.killed_by is not None:
        raise SystemExit(128 + app.killed_by)
    if app._exception is not None:  # Textual keeps it and ends the app; who called must not take that for a normal end
        raise app._exception
    return source.snapshot()
