"""`mav run` in a terminal: the engine's process first, so that it imports the model's libraries while the screen is painted."""

from __future__ import annotations

import os

from openmav.cli.config_file.read import read_config
from openmav.cli.config_file.write import save_layout
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.protocol.commands import Command
from openmav.recording.recorder import Recorder
from openmav.recording.source import RecordingSource
from openmav.settings import Settings
from openmav.system.logs import record_failure, redirect, say
from openmav.view.layouts import COMPARE, LAYOUTS
from openmav.view.options import AppOptions


def app_options(layout: str | None, theme: str | None, *, compares: bool = False) -> AppOptions:
    """What the user configured, with this layout and theme where they are given; a comparison begins with a layout of its own.

    Raises UsageError for an unknown layout.
    """
    config = read_config()
    layouts = {**LAYOUTS, **COMPARE, **config.layouts} if compares else config.layouts
    layout = layout or (next(iter(COMPARE)) if compares else config.layout) or "overview"
    if layout not in layouts:
        raise UsageError(registry.unknown("layout", layout, list(layouts)))
    return AppOptions(
        panels=registry.need_known("panels", layouts[layout]),
        layouts=layouts,
        layout=layout,
        sizes=config.sizes,
        save_layout=save_layout,
        keys=config.keys,
        theme=theme or config.theme,
        color=not os.environ.get("NO_COLOR"),
    )


def show_app(settings: Settings, options: AppOptions, tour: int = 0, record: str | None = None, first: Command | None = None) -> int:
    """Run the app until the user quits; the exit code, 0 unless the model could not be loaded or its process failed.

    `record`: the run goes into this new file as well; `first`: what the engine does before all else. Raises UsageError where the file
    can't be made.
    """
    log = redirect(descriptors=False)
    from openmav.apps.live import show, start_switching

    recorder = Recorder(record, settings) if record is not None else None
    source = start_switching(settings, str(log))
    recorded = RecordingSource(source, settings, recorder)
    if first is not None:
        recorded.send(first)
    last = show(recorded, options, tour)
    if recorded.message:
        say(f"mav: {recorded.message}")
    if last.error is None:
        return 0
    where = f"; the details are in {record_failure(source.details)}" if source.details else ""
    say("mav: " + " ".join(last.error.split()) + where)
    return source.exit_code or 1
