"""The app's side: a Source whose session runs in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from openmav.engine import faults
from openmav.engine.app_watch import AppState, SlowMeasure
from openmav.engine.child_process import serve
from openmav.engine.events import BranchLeft, BranchRenamed, Event, Made, Recomputed, StateChanged, first_state
from openmav.engine.queue import CommandQueue
from openmav.errors import LoadTimeoutError, words_of
from openmav.protocol.commands import COMMANDS, Command, SetSampling
from openmav.protocol.history import History
from openmav.protocol.snapshot import Snapshot
from openmav.settings import LONGEST_WAIT, Settings
from openmav.system import signals
from openmav.system.logs import keep_native
from openmav.system.terminal_state import TerminalState


@contextmanager
def _quiet_tracker() -> Iterator[None]:
    """The process of Python's own that frees what an engine leaves, if it starts in the block, frees it without a warning.

    tqdm, which transformers uses, leaves a semaphore in every engine; the warning would stand on the user's terminal.
    """
    quiet = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(quiet)  # the options of processes that are started
    try:
        yield
    finally:
        sys.warnoptions.remove(quiet)


class EngineSource:
    """A Source whose session runs in a process of its own, which starts at once. Satisfies openmav.protocol.source.Source."""

    can = COMMANDS

    def __init__(self, settings: Settings, log: str | None = None, terminal: TerminalState | None = None) -> None:
        """`terminal`: as it was before the app, to be put back by the engine where the app's process dies without a word."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._lock = threading.Lock()
        self._queue = CommandQueue()
        self._sent = 0  # the number of the last command
        self._sampling_sent = 0  # and of the last one about sampling
        self._closing = False
        self._changed: Callable[[], None] | None = None
        self._log = log
        self._load_timeout = settings.load_timeout
        self._started = time.monotonic()
        self._loaded = False
        self.exit_code = 0
        self.details = ""  # the traceback of a failure, for the log
        self._state = first_state(settings)  # the engine's own
        self._history = History(Snapshot().with_state(self._state))
        self._shared = context.RawValue(AppState)
        self._slow = SlowMeasure(self._shared)
        self._process = context.Process(target=serve, args=(theirs, settings, log, terminal, self._shared), daemon=True, name="mav engine")
        with signals.held(), _quiet_tracker():
            self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, daemon=True, name="mav engine reader")
        self._writer = threading.Thread(target=self._write, daemon=True, name="mav engine writer")
        self._reader.start()
        self._writer.start()

    def snapshot(self) -> Snapshot:
        """The newest state. Whoever asks shows that the app is alive, and is told of a measure that takes long."""
        self._shared.beats += 1
        with self._lock:  # so that no answer of the engine's comes in between
            now = self._history.snapshot()
            notice = self._slow.notice(now.notice)
            if notice != now.notice:
                self._history.update(notice=notice)
                now = self._history.snapshot()
        return now

    def send(self, command: Command) -> None:
        """Send a command, without waiting for an engine that is busy; a command to an engine that is gone is dropped.

        Another sampling stands in the snapshot at once, so that the next command can build on it.
        """
        with self._lock:
            if not self._queue.put(self._sent + 1, command):
                self._history.update(notice="the model is busy, and too much waits for it already: that was not requested")
                return
            self._sent += 1
            if isinstance(command, SetSampling):
                self._sampling_sent = self._sent
                self._history.update(sampling=command.sampling)

    def observe(self, changed: Callable[[], None] | None) -> Snapshot:
        """From now on `changed` is called after each event of the engine's, by the thread that reads them; the newest state."""
        self._changed = changed
        return self.latest()

    def latest(self) -> Snapshot:
        """The newest state, for whoever is not the app: asking is no sign that the app is alive."""
        return self._history.snapshot()

    def name_panel(self, name: str) -> None:
        """Which panel of somebody else's is being called, "" for none: named where the app's process dies meanwhile."""
        self._shared.name_panel(name)

    @property
    def pid(self) -> int | None:
        """Of the engine's process."""
        return self._process.pid

    def close(self) -> None:
        """End the process, whatever it is doing; returns within a second."""
        self._closing = True
        self._queue.close()
        self._process.terminate()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(0.5)
        self._writer.join(0.5)
        self._reader.join(0.5)
        self._pipe.close()
        self._keep_native()

    def _write(self) -> None:
        """The writer's thread: the pipe is full while the engine is busy, and nobody else waits for that."""
        with contextlib.suppress(OSError, ValueError):
            while (numbered := self._queue.take()) is not None:
                self._pipe.send(numbered)

    def _read(self) -> None:
        """The thread that reads what the engine sends; however it ends, the snapshot says so."""
        try:
            self._drain()
        except BaseException as error:
            self.details = traceback.format_exc()
            self._fail(f"what the model's process sent could not be read: {words_of(error, kind=True)}")
            self._process.kill()

    def _drain(self) -> None:
        while True:
            try:
                if not self._loaded and not self._pipe.poll(self._left_to_load()):
                    self._fail(str(LoadTimeoutError(self._load_timeout)), LoadTimeoutError.exit_code)
                    self._process.kill()
                    break
                event = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._take(event)
            if self._changed is not None:
                self._changed()
        if not self._closing and self.snapshot().status != "failed":
            self._process.join(1)
            self._keep_native()
            said = self._shared.last_line
            self._fail(said or f"the model's process ended unexpectedly, {faults.ended(self._process.exitcode)}")

    def _keep_native(self) -> None:
        """What the engine's compiled libraries have written goes into the log once its process is gone."""
        if self._log is not None and self._process.pid is not None and not self._process.is_alive():
            keep_native(self._process.pid, self._log)

    def _left_to_load(self) -> float | None:
        """Seconds; None where there is no limit."""
        if not 0 < self._load_timeout <= LONGEST_WAIT:
            return None
        return max(0.0, self._started + self._load_timeout - time.monotonic())

    def _fail(self, line: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        self._history.update(status="failed", resumes=False, error=line)

    def _take(self, event: Event) -> None:
        history = self._history
        if isinstance(event, Made):
            history.extend(event.steps)
        elif isinstance(event, StateChanged):
            self._take_state(event)
        elif isinstance(event, BranchLeft):
            history.keep(event.branch, event.shared)
        elif isinstance(event, Recomputed):
            history.again(event.step)
        elif isinstance(event, BranchRenamed):
            history.rename(event.old, event.new)
        else:
            self.details = event.details
            self._fail(event.line, event.exit_code)

    def _take_state(self, event: StateChanged) -> None:
        """What this side has said itself stays: a sampling until the engine has taken it, a notice until a command is answered."""
        self._state = state = replace(self._state, **event.changes)
        self._loaded = state.info is not None
        with self._lock:
            now = self._history.snapshot()
            if event.obeyed < self._sampling_sent:
                state = replace(state, sampling=now.sampling)
            if event.length is None:
                state = replace(state, notice=now.notice)
            self._history.set_state(state, event.length)
