"""Leaving the terminal as it was: a signal that ends the program ends the app first, and nothing of the app stays on the screen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openmav.apps.tui.app import MavApp


EMPTY = "\x1b[0m\x1b[H\x1b[J"
GRACE = 1.0  # seconds that the app has to leave the terminal as it was; a terminal that is gone would hold it for ever


def leave(app: MavApp, number: int) -> None:
    """Quit the app as this signal asks, and the process with it if the app can't."""
    if app.killed_by is None:
        app.killed_by = number
        last = threading.Timer(GRACE, os._exit, (128 + number,))
        last.daemon = True
        last.start()
        app.exit()


def leave_if_orphaned(app: MavApp) -> None:
    """Quit where the terminal has gone without a signal, as when mav is not the leader of its session."""
    if not app.is_headless and sys.__stdin__ is not None and not sys.__stdin__.isatty():
        leave(app, int(getattr(signal, "SIGHUP", signal.SIGTERM)))


def leave_nothing_behind(app: MavApp) -> None:
    """Has the app's screen emptied when it is left, at its end and for a pause.

    A terminal that has grown meanwhile may keep full rows of it above the text that comes back, as tmux 3.3a does.
    """
    driver = app._driver
    if driver is None or app.is_headless:
        return
    stop = driver.stop_application_mode

    def leaving() -> None:
        driver.write(EMPTY)
        stop()

    driver.stop_application_mode = leaving  # type: ignore[method-assign]


def catch_signals(app: MavApp) -> None:
    """SIGTERM, and SIGHUP where there is one, quit the app and are remembered in `killed_by`.

    Nothing is caught where the event loop cannot (Windows, or a loop beside the main thread): the system's own way stays.
    """
    loop = asyncio.get_running_loop()

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, leave, app, int(number))
        except (NotImplementedError, RuntimeError, ValueError):
            return
