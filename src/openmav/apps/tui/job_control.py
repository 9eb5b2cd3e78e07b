"""Job control: the app gives the terminal back when it is stopped, and takes it again when it goes on in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from types import FrameType

from textual.app import App
from textual.driver import Driver

QUIET = 0.1  # seconds without another stop or continue after which the terminal is taken again
LONGEST = 2.0  # seconds that a storm of them may put that off


class JobControl:
    """SIGTSTP and SIGCONT: the terminal is given back once before the process stops, and taken once when it is quiet again.

    Textual's own handlers start its threads anew at each SIGCONT, also where they run, and remember raw modes as the terminal's own.
    """

    def __init__(self, app: App[None]) -> None:
        self._app, self._event_loop = app, asyncio.get_running_loop()
        self._stop = self._continued = self._handling = False
        signal.signal(signal.SIGTSTP, self._on_stop)
        signal.signal(signal.SIGCONT, self._on_continue)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True
        self._call()

    def _on_continue(self, _number: int, _frame: FrameType | None) -> None:
        self._continued = True
        self._call()

    def _call(self) -> None:
        """A signal handler does nothing but take notes; several become one."""
        if not self._handling:
            self._event_loop.call_soon_threadsafe(self._handle)

    def _handle(self) -> None:
        app, driver = self._app, self._app._driver
        if driver is None or self._handling or not (self._stop or self._continued) or not app.is_running:
            return
        if not os.isatty(driver.fileno):  # type: ignore[attr-defined]
            return  # the terminal is gone, which the app notices by itself; what is written to it now would wait for ever
        self._handling = True
        self._give_back(driver)
        while self._stop or not self._in_foreground(driver.fileno):  # type: ignore[attr-defined]
            self._stop = False
            os.kill(os.getpid(), signal.SIGSTOP)
            self._wait_until_quiet()
        self._continued = False
        driver._must_signal_resume = True  # type: ignore[attr-defined]
        driver.resume_application_mode()
        app.screen.refresh(layout=True)
        self._handling = False
        self._event_loop.call_soon(self._handle)  # for a stop that has come meanwhile

    @staticmethod
    def _give_back(driver: Driver) -> None:
        """Also from the background, where the system would stop the process in the midst of it, with the app's screen on."""
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            driver.suspend_application_mode()
        finally:
            signal.signal(signal.SIGTTOU, before)

    def _wait_until_quiet(self) -> None:
        began = quiet = time.monotonic()
        while time.monotonic() - quiet < QUIET and time.monotonic() - began < LONGEST:
            if self._continued:
                self._continued, quiet = False, time.monotonic()
            time.sleep(QUIET / 10)

    @staticmethod
    def _in_foreground(descriptor: int) -> bool:
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:  # the terminal is gone, which the app notices by itself
            return True


def catch_stops(app: App[None]) -> None:
    """In the place of Textual's handlers, where it has any."""
    if hasattr(app._driver, "_sigtstp_application") and threading.current_thread() is threading.main_thread():
        JobControl(app)
