"""`mav tour`: the guided tour on the bundled model."""

from __future__ import annotations

import os
import sys

from openmav.cli.config_file.read import read_config
from openmav.cli.options.values import TourOptions
from openmav.cli.run import app_threads
from openmav.errors import UsageError
from openmav.settings import Settings
from openmav.settings.sampling import SamplingOptions
from openmav.system.terminal import is_terminal
from openmav.view.options import AppOptions

PROMPT = "Mr. Darcy looked at the young"  # the demo continues it with one of several likely tokens


def take_tour(options: TourOptions) -> int:
    """Run the tour until the user leaves; the exit code.

    Raises UsageError where there is no terminal, or for a mistake in the config file.
    """
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("mav tour needs a terminal on stdin and stdout")
    from openmav.apps.tui.tour.steps import TOUR_STEPS
    from openmav.cli.app import show_app

    if options.step > len(TOUR_STEPS):
        raise UsageError(f"the tour has {len(TOUR_STEPS)} steps; there is no step {options.step}")
    step, config = TOUR_STEPS[options.step - 1], read_config()
    shown = AppOptions(
        panels=step.panels,
        theme=options.theme or config.theme,
        color=not os.environ.get("NO_COLOR"),
        keys=config.keys,
    )

    sampling = SamplingOptions(temperature=step.temperature, top_k=0)  # so that temperature alone changes the bars
    settings = Settings(
        prompt=PROMPT, interactive=True, max_new_tokens=1000, sampling=sampling, refresh_rate=0.2, threads=app_threads(None)
    )
    return show_app(settings, shown, tour=options.step)
