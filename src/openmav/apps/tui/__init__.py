"""The live terminal app; `run` shows a source until the user quits. Textual is imported there, not before."""

from __future__ import annotations

import os

from openmav.apps.tui.descriptors import terminal_to_itself
from openmav.apps.tui.early_keys import EarlyKeys
from openmav.apps.tui.first_paint import first_paint
from openmav.protocol.snapshot import Snapshot
from openmav.protocol.source import Source
from openmav.system.logs import say
from openmav.system.signals import check, forget
from openmav.system.terminal import neutral
from openmav.system.terminal_state import TerminalState
from openmav.view.options import AppOptions


def run(source: Source, options: AppOptions, tour: int = 0) -> Snapshot:
    """Shows the source until the user quits, and returns its last state; the terminal is then as it was.

    `tour`: with a guide, which begins at this step, counted from 1; 0: without.

    Raises UsageError for an unknown panel or theme before anything is shown, SystemExit where a signal ended the app, and
    whatever went wrong inside it.
    """
    if not options.color:
        os.environ["NO_COLOR"] = "1"  # Textual asks for it by itself
    terminal = TerminalState.now()
    early = EarlyKeys(options.keys.get("quit", "q"))
    with terminal_to_itself():
        try:
            with first_paint(source.can, options), early:
                from openmav.apps.tui.app import MavApp
                from openmav.apps.tui.panel_runner import leaving_in_order, naming
                from openmav.apps.tui.pasting import PasteParser
                from openmav.apps.tui.terminal_signals import interrupt_as_before

                if tour:
                    from openmav.apps.tui.tour.app import TourApp

                app = TourApp(source, options, tour - 1) if tour else MavApp(source, options)
                app.guard.terminal = terminal
                check()  # what is imported may have swallowed a Ctrl-C
        except BaseException:
            early.put_back()
            if not early.quits:
                raise
            forget()
            return source.snapshot()
        PasteParser.early = early.typed

        def leave(panel: str) -> None:
            source.close()
            if terminal is not None:
                terminal.restore(f"mav: the panel '{neutral(panel)}' ended the program (os._exit)" if panel else "")

        with naming(getattr(source, "name_panel", None)), leaving_in_order(leave), interrupt_as_before():
            try:
                app.run()
            finally:
                if terminal is not None:
                    terminal.put_back()
    if app.guard.killed_by is not None:
        raise SystemExit(128 + app.guard.killed_by)
    if app._exception is not None:  # Textual keeps it and ends the app; who called must not take that for a normal end
        raise app._exception
    if tour and isinstance(app, TourApp) and app.farewell:
        say(app.farewell)
    return source.snapshot()
