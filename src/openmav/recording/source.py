"""A Source that is recorded while an app shows it: a thread of its own writes, and neither model nor screen waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from openmav.protocol.commands import Command
from openmav.protocol.snapshot import Snapshot
from openmav.protocol.source import Source
from openmav.recording.recorder import Recorder
from openmav.settings import Settings


class Observable(Source, Protocol):
    """A source that says when something has changed, such as an engine."""

    def observe(self, changed: Callable[[], None] | None) -> Snapshot: ...

    def latest(self) -> Snapshot: ...

    def name_panel(self, name: str) -> None: ...

    @property
    def pid(self) -> int | None: ...


class RecordingSource:
    """The source itself, and what is new in it goes into a file. `message` says at the end where the recording is."""

    def __init__(self, source: Observable, settings: Settings, recorder: Recorder | None = None) -> None:
        self._source = source
        self._settings = settings
        self._recorder: Recorder | None = None
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self.message = ""
        self._notice = ""
        if recorder is not None:
            self._start(recorder)

    @property
    def can(self) -> frozenset[str]:
        return self._source.can

    @property
    def pid(self) -> int | None:
        return self._source.pid

    def name_panel(self, name: str) -> None:
        self._source.name_panel(name)

    def snapshot(self) -> Snapshot:
        """The source's, with the line that says why a recording stopped."""
        now = self._source.snapshot()
        return replace(now, notice=self._notice, version=now.version + 1_000_000_000) if self._notice and not now.notice else now

    def send(self, command: Command) -> None:
        self._notice = ""
        self._source.send(command)

    def close(self) -> None:
        """Ends the source, then writes what is left."""
        self._source.close()
        if self._thread is not None:
            self._ended = True
            self._wake.set()
            self._thread.join(10)
            self._thread = None
        if self._recorder is not None and self._recorder.failure:
            self._recorder.close()

    def record(self, path: Path | None = None) -> str:
        """Records from now on, what happened before first; a line that says where. `path` None: a new file in the working directory.

        Raises UsageError where the file can't be made.
        """
        if self._recorder is not None and self._recorder.recording:
            return f"the run is being recorded into {self._recorder.writer.path}"
        self._start(Recorder(path or new_path(), getattr(self._source, "settings", self._settings)))
        assert self._recorder is not None
        return f"recording into {self._recorder.writer.path}, what happened before included"

    def load_model(self, name: str) -> str:
        """Has the source load another model; a line about it. Raises UsageError for no name."""
        load = getattr(self._source, "load_model", None)
        if load is None:
            return "the model of this source cannot be changed"
        if self._recorder is not None and self._recorder.recording:
            return "the run is being recorded, and a recording holds one model: quit and start mav with the other one"
        line: str = load(name)
        return line

    def _start(self, recorder: Recorder) -> None:
        if self._recorder is not None:  # which has failed
            self._recorder.close()
        self._recorder = recorder
        self.message = f"the recording is in {recorder.writer.path}"
        self._thread = threading.Thread(target=self._write, args=(recorder,), daemon=True, name="mav recorder")
        self._source.observe(self._wake.set)
        self._wake.set()
        self._thread.start()

    def _write(self, recorder: Recorder) -> None:
        while not recorder.failure:
            self._wake.wait()
            self._wake.clear()
            ended = self._ended
            recorder.update(self._source.latest())
            if ended:
                break
        if not recorder.failure:
            recorder.close()
        else:
            self.message = recorder.failure
            self._notice = f"{recorder.failure}; the run goes on"


def new_path() -> Path:
    """A name in the working directory that is free."""
    name = time.strftime("mav-%Y%m%d-%H%M%S")
    names = (Path(f"{name}{more}.mav") for more in ("", *(f"-{count}" for count in range(2, 100))))
    return next((path for path in names if not path.exists()), Path(f"{name}.mav"))
