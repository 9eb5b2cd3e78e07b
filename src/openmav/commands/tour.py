"""`mav tour`: the guided tour on the bundled model."""

from __future__ import annotations

import os
import sys

from openmav.apps.options import AppOptions
from openmav.commands.config import read_config
from openmav.commands.run import cores
from openmav.errors import UsageError
from openmav.settings import Settings
from openmav.terminal import is_terminal

PANELS = ("generated_text", "timeline")  # of its first stop


def take_tour(theme: str | None) -> int:
    """Run the tour until the reader leaves; the exit code.

    Raises UsageError where there is no terminal, or for a mistake in the config file.
    """
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("mav tour needs a terminal on stdin and stdout")
    from openmav.commands.app import show_app

    config = read_config()
    options = AppOptions(panels=PANELS, theme=theme or config.theme, color=not os.environ.get("NO_COLOR"), keys=config.keys)

    settings = Settings(interactive=True, max_new_tokens=1000, refresh_rate=0.2, threads=max(1, cores() - 1))
    return show_app(settings, options, tour=True)
