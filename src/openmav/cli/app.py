"""`mav run` in a terminal: the engine's process first, so that it imports the model's libraries while the screen is painted."""

from __future__ import annotations

from openmav.protocol.commands import Command
from openmav.recording.recorder import Recorder
from openmav.recording.source import RecordingSource
from openmav.settings import Settings
from openmav.system.logs import record_failure, redirect, say
from openmav.view.options import AppOptions


def show_app(settings: Settings, options: AppOptions, tour: bool = False, record: str | None = None, first: Command | None = None) -> int:
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
