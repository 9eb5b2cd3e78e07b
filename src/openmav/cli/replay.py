"""`mav replay FILE`: a recording in the app, without a model, or with it once more."""

from __future__ import annotations

import sys
from dataclasses import replace

from openmav.cli.app import app_options, show_app
from openmav.cli.flags import ReplayOptions
from openmav.errors import UsageError
from openmav.recording.facts import read_settings
from openmav.recording.replay import ReplaySource, retrace_of
from openmav.system.terminal import is_terminal


def replay_command(options: ReplayOptions) -> int:
    """Shows the recording until the user quits; with `rerun` the model makes its text again, and goes on with it.

    Raises UsageError for what is no recording, for an unknown layout, and without a terminal.
    """
    if options.rerun and options.follow:
        raise UsageError("--follow looks at a recording that is being written, --rerun makes its text again; give one of them")
    source = ReplaySource(options.file, options.follow)
    try:
        if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
            raise UsageError("mav replay needs a terminal on stdin and stdout; without one use mav info or mav export")
        shown = app_options(options.layout, options.theme, compares=source.snapshot().comparison is not None)
        if not options.rerun:
            from openmav.apps import tui

            tui.run(source, shown)
            return 0
        settings = replace(read_settings(source.recording.meta.get("settings")), interactive=True)
        again = retrace_of(source.recording)
    finally:
        source.close()
    return show_app(settings, shown, first=again)
