"""Leaving the terminal as it was: a signal that ends the program ends the app first, and nothing of the app stays on the screen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from textual.app import App

from openmav.system.terminal_state import TerminalState

EMPTY = "\x1b[0m\x1b[H\x1b[J"
EXIT = os._exit  # not the one that names a panel
GRACE = 1.0  # seconds that the app has to leave the terminal as it was; a terminal that is gone would hold it for ever


class TerminalGuard:
    """Signals and the terminal of an app. `close` ends what the app looks at, where the app itself no longer can."""

    def __init__(self, app: App[None], close: Callable[[], None]) -> None:
        self._app, self._close = app, close
        self.killed_by: int | None = None  # the signal that ended the app
        self.terminal: TerminalState | None = None  # as it was before the app started
        self._numbers: SimpleQueue[int] = SimpleQueue()  # of signals; it may be written to in a handler

    def leave(self, number: int) -> None:
        """Quits the app as this signal asks, and the process with it if the app can't."""
        self._numbers.put(number)
        if self.killed_by is None:
            self.killed_by = number
            self._app.exit()

    def _end_if_the_app_does_not(self) -> None:
        """In a thread of its own: a terminal that takes no output any more holds the app's."""
        while self._app.is_running:
            with suppress(Empty):
                number = self._numbers.get(timeout=GRACE)
                break
        else:
            return
        time.sleep(GRACE)
        self._close()
        if self.terminal is not None:
            self.terminal.restore()
        EXIT(128 + number)

    def leave_if_orphaned(self) -> None:
        """Quits if the terminal has gone without a signal, as when mav is not the leader of its session."""
        if not self._app.is_headless and sys.__stdin__ is not None and not sys.__stdin__.isatty():
            self.leave(int(getattr(signal, "SIGHUP", signal.SIGTERM)))

    def leave_nothing_behind(self) -> None:
        """Has the app's screen cleared when it is left, at its end and when it is suspended.

        A terminal that has grown meanwhile may keep full rows of it above the text that comes back, as tmux 3.3a does.
        """
        driver = self._app._driver
        if driver is None or self._app.is_headless:
            return
        stop = driver.stop_application_mode

        def leaving() -> None:
            driver.write(EMPTY)
            stop()

        driver.stop_application_mode = leaving  # type: ignore[method-assign]

    def catch_signals(self) -> None:
        """SIGINT and SIGTERM, and SIGHUP and SIGQUIT where there are any, quit the app and are remembered in `killed_by`.

        What a handler of Python's own raises could be swallowed by the event loop, with a part of the app. Nothing is caught where
        the event loop cannot (Windows, or a loop beside the main thread): the system's own way stays.
        """
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._end_if_the_app_does_not, daemon=True, name="mav last resort").start()

        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
            number = getattr(signal, name, None)
            if number is None or (number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN):  # as the parent chose
                continue
            try:
                loop.add_signal_handler(number, self.leave, int(number))  # by a pipe; its handler does nothing
                signal.signal(number, lambda number, _frame: self._numbers.put(number))  # also where the event loop is held up
            except (NotImplementedError, RuntimeError, ValueError):
                return


@contextmanager
def interrupt_as_before() -> Iterator[None]:
    """After the block SIGINT is handled as before it: an event loop leaves Python's own handler behind."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
