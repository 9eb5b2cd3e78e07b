"""The app's side: a Source whose session runs in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading

from openmav.engine.events import Again, Event, Explained, Kept, Made, Ready, Renamed, State, Working
from openmav.engine.process import serve
from openmav.settings import Settings
from openmav.source import COMMANDS, Command, History, SetSampling, Snapshot


class EngineSource:
    """A Source whose session runs in a process of its own, which starts at once. Satisfies openmav.source.Source."""

    can = COMMANDS

    def __init__(self, settings: Settings, log: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._lock = threading.Lock()  # commands leave in the order in which they are counted
        self._asking = threading.Lock()  # never held while the pipe may be full
        self._sent = 0
        self._sampling_sent = 0  # how many commands had been sent with the last one about sampling
        self._closing = False
        self.exit_code = 0
        self.details = ""  # the traceback of a failure, for the log
        self._history = History(Snapshot(progress="starting", sampling=settings.sampling))
        self._process = context.Process(target=serve, args=(theirs, settings, log), daemon=True, name="mav engine")
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._drain, daemon=True, name="mav engine reader")
        self._reader.start()

    def snapshot(self) -> Snapshot:
        return self._history.snapshot()

    def send(self, command: Command) -> None:
        """Ask for something; a command to an engine that is gone is dropped, its end is in the snapshot already.

        Another sampling stands in the snapshot at once, so that what is asked for next can build on it.
        """
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._sent += 1
            if isinstance(command, SetSampling):
                with self._asking:
                    self._sampling_sent = self._sent
                    self._history.update(sampling=command.sampling)
            self._pipe.send(command)

    @property
    def pid(self) -> int | None:
        """Of the engine's process."""
        return self._process.pid

    def close(self) -> None:
        """End the process, whatever it is doing; returns within a second."""
        self._closing = True
        self._process.terminate()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(0.5)
        self._reader.join(0.5)
        self._pipe.close()

    def _drain(self) -> None:
        while True:
            try:
                self._take(self._pipe.recv())
            except (EOFError, OSError):
                break
        if not self._closing and self.snapshot().status != "failed":
            self._process.join(1)
            self.exit_code = 1
            how = f"exit code {self._process.exitcode}"
            self._history.update(status="failed", error=f"the model's process ended unexpectedly ({how}); was it killed, or out of memory?")

    def _take(self, event: Event) -> None:
        history = self._history
        if isinstance(event, Made):
            history.extend(event.steps)
        elif isinstance(event, State):
            status = "ended" if event.reason else "running" if event.running else "paused"
            history.truncate(event.length)
            history.stand(event.branch, event.parent, event.at, event.ahead)
            history.update(
                status=status,
                progress="",
                reason=event.reason,
                notice=event.notice,
                interventions=event.interventions,
                breakpoints=event.breakpoints,
            )
            with self._asking:
                if event.obeyed >= self._sampling_sent:
                    history.update(sampling=event.sampling)
        elif isinstance(event, Kept):
            history.keep(event.branch, event.shared)
        elif isinstance(event, Again):
            history.again(event.step)
        elif isinstance(event, Explained):
            history.update(attribution=event.attribution)
        elif isinstance(event, Renamed):
            history.rename(event.old, event.new)
        elif isinstance(event, Working):
            history.update(status="prefill" if event.reading else "loading", progress=event.what, fraction=event.share)
        elif isinstance(event, Ready):
            history.update(info=event.info, prompt=event.prompt, progress="reading the prompt")
        else:
            self.exit_code, self.details = event.exit_code, event.details
            history.update(status="failed", error=event.line)
