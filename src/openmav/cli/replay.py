"""`mav replay FILE`: a recording in the app, without a model, or with it once more."""

from __future__ import annotations

import sys
from dataclasses import replace

from openmav.cli.app import app_options, show_app
from openmav.cli.options.values import ReplayOptions
from openmav.errors import UsageError
from openmav.recording.facts import read_settings
from openmav.recording.replay import ReplaySource, retrace_of
from openmav.recording.sweep import RecordedSweep, read_sweep
from openmav.system.terminal import is_terminal


def replay_command(options: ReplayOptions) -> int:
    """Shows the recording until the user quits; with `rerun` the model makes its text again, and goes on with it. A sweep's map is printed.

    Raises UsageError for what is no recording, for an unknown layout, and without a terminal.
    """
    if options.rerun and options.follow:
        raise UsageError("--follow looks at a recording that is being written, --rerun makes its text again; give one of them")
    source = ReplaySource(options.file, options.follow)
    try:
        sweep = read_sweep(source.recording)
        if sweep is not None:
            return _replay_sweep(sweep, options)
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


def _replay_sweep(sweep: RecordedSweep, options: ReplayOptions) -> int:
    if options.rerun or options.follow or options.layout:
        raise UsageError("a recorded sweep is a map, without --rerun, --follow and --layout; mav verify --rerun runs the sweep again")
    from openmav.cli.sweep import replay_sweep

    return replay_sweep(sweep, options.theme)
