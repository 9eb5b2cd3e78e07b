"""`mav replay FILE`: a recording in the app, without a model."""

from __future__ import annotations

import os
import sys

from openmav.cli.config_file.read import read_config
from openmav.cli.config_file.write import save_layout
from openmav.cli.flags import ReplayOptions
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.recording.replay import ReplaySource
from openmav.system.terminal import is_terminal
from openmav.view.options import AppOptions


def replay_command(options: ReplayOptions) -> int:
    """Shows the recording until the user quits.

    Raises UsageError for what is no recording, for an unknown layout, and without a terminal.
    """
    source = ReplaySource(options.file, options.follow)
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        source.close()
        raise UsageError("mav replay needs a terminal on stdin and stdout; without one use mav info or mav export")
    config = read_config()
    layout = options.layout or config.layout or "overview"
    if layout not in config.layouts:
        source.close()
        raise UsageError(registry.unknown("layout", layout, list(config.layouts)))
    app_options = AppOptions(
        panels=registry.need_known("panels", config.layouts[layout]),
        layouts=config.layouts,
        layout=layout,
        sizes=config.sizes,
        save_layout=save_layout,
        keys=config.keys,
        theme=options.theme or config.theme,
        color=not os.environ.get("NO_COLOR"),
    )
    from openmav.apps import tui

    try:
        tui.run(source, app_options)
    finally:
        source.close()
    return 0
