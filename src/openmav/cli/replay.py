"""`mav replay FILE`: a recording in the app, without a model, or with it once more."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from openmav.cli.app import show_app
from openmav.cli.config_file.read import read_config
from openmav.cli.config_file.write import save_layout
from openmav.cli.flags import ReplayOptions
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.recording.facts import read_settings
from openmav.recording.replay import ReplaySource, retrace_of
from openmav.system.terminal import is_terminal
from openmav.view.options import AppOptions


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
        app_options = _app_options(options)
        if not options.rerun:
            from openmav.apps import tui

            tui.run(source, app_options)
            return 0
        settings = replace(read_settings(source.recording.meta.get("settings")), interactive=True)
        again = retrace_of(source.recording)
    finally:
        source.close()
    return show_app(settings, app_options, first=again)


def _app_options(options: ReplayOptions) -> AppOptions:
    config = read_config()
    layout = options.layout or config.layout or "overview"
    if layout not in config.layouts:
        raise UsageError(registry.unknown("layout", layout, list(config.layouts)))
    return AppOptions(
        panels=registry.need_known("panels", config.layouts[layout]),
        layouts=config.layouts,
        layout=layout,
        sizes=config.sizes,
        save_layout=save_layout,
        keys=config.keys,
        theme=options.theme or config.theme,
        color=not os.environ.get("NO_COLOR"),
    )
