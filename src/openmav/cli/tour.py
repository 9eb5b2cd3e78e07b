"""`mav tour`: the guided tour on the bundled model."""

from __future__ import annotations

import os
import sys

from openmav.cli.config_file.read import read_config
from openmav.cli.options.values import TourOptions
from openmav.cli.run import app_threads
from openmav.errors import UsageError
from openmav.settings import Settings
from openmav.system.terminal import is_terminal
from openmav.view.options import AppOptions

PANELS = ("generated_text",)  # of its first stop
PROMPT = "Mr. Darcy looked at the young"  # the demo continues it with one of several likely tokens


def take_tour(options: TourOptions) -> int:
    """Run the tour until the user leaves; the exit code.

    Raises UsageError where there is no terminal, or for a mistake in the config file.
    """
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("mav tour needs a terminal on stdin and stdout")
    from openmav.cli.app import show_app

    config = read_config()
    shown = AppOptions(panels=PANELS, theme=options.theme or config.theme, color=not os.environ.get("NO_COLOR"), keys=config.keys)

    settings = Settings(prompt=PROMPT, interactive=True, max_new_tokens=1000, refresh_rate=0.2, threads=app_threads(None))
    return show_app(settings, shown, tour=True)
