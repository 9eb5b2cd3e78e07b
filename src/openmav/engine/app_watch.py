"""What the app's process and the engine's know of each other without a word: which code of somebody else's runs, and whether it lets go.

A thread that keeps Python's lock for itself (an expression with endless backtracking, say) stops its whole process: keys and
signals wait for it too. The other process sees that, and ends it where the user asks for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import time

from openmav.plugins.contracts import MEASURE_LIMIT
from openmav.system.terminal import neutral
from openmav.system.terminal_state import TerminalState

NAME_BYTES, LINE_BYTES = 256, 1024
LOOK = 0.25  # seconds between two looks at an app that is alive
HELD = 3.0  # seconds without a beat, amid a panel's code, after which the keys are read here; a panel is given up after 2
SLOW = 2.0  # seconds after x a measure
LEAVES = re.compile(rb"q|\x03|\x1b\[(?:113(?:;1)?|99;5)(?::1)?(?:;[\d:]*)?u")  # q and ctrl+c, also as the kitty protocol has them


class AppState(ctypes.Structure):
    """Shared by both processes; each field is written by one of them."""

    _fields_ = (
        ("panel", ctypes.c_char * NAME_BYTES),  # whose code the app calls; "" for none
        ("beats", ctypes.c_ulong),  # counted up by the app as long as it answers
        ("measure", ctypes.c_char * NAME_BYTES),  # whose code the engine calls; "" for none
        ("calls", ctypes.c_ulong),  # of measures so far
        ("last_words", ctypes.c_char * LINE_BYTES),  # why the engine ends, where a compiled library ends it
    )
    panel: bytes
    beats: int
    measure: bytes
    calls: int
    last_words: bytes

    def name_panel(self, name: str) -> None:
        self.panel = name.encode()[: NAME_BYTES - 1]

    def name_measure(self, name: str) -> None:
        self.calls += 1
        self.measure = name.encode()[: NAME_BYTES - 1]

    def leave(self, line: str) -> None:
        self.last_words = line.encode()[: LINE_BYTES - 1]

    @property
    def last_line(self) -> str:
        return self.last_words.decode(errors="replace")

    @property
    def panel_name(self) -> str:
        return neutral(self.panel.decode(errors="replace"))


class SlowMeasure:
    """The app's side: says which measure has been computing for long."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._call, self._since, self._said = 0, 0.0, ""

    def notice(self, other: str) -> str:
        """The line about it; `other`, which stands there now, where none takes long."""
        if self._state.calls != self._call:
            self._call, self._since = self._state.calls, time.monotonic()
        name, seconds = self._state.measure.decode(errors="replace"), time.monotonic() - self._since
        before, self._said = self._said, ""
        if name and seconds > SLOW:
            waits = f"the model waits for it, {MEASURE_LIMIT:.0f} s at most"
            self._said = f"the measure '{name}' has been computing for {seconds:.0f} s; {waits}"
            return self._said
        return "" if before and other == before else other


def leave_with_app(terminal: TerminalState | None, app: AppState | None) -> None:
    """Ends this process once the app's is gone, whatever is under way: a library that is being imported, a long forward pass.

    An app that leaves in order ends this process first. One that is killed leaves the terminal to it.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if terminal is None or app is None:
        parent.join()
    elif not _watch(parent, terminal, app):
        during = f" while it drew the panel '{app.panel_name}'" if app.panel else ""
        terminal.restore(f"mav: the app's process ended without a word{during}; it crashed or was killed")
    os._exit(1)


def _watch(parent: multiprocessing.process.BaseProcess, terminal: TerminalState, app: AppState) -> bool:
    """Waits until the app's process is gone; whether it was ended here."""
    beats, since = app.beats, time.monotonic()
    while parent.is_alive():
        parent.join(LOOK)
        if app.beats != beats or not app.panel:
            beats, since = app.beats, time.monotonic()
        elif time.monotonic() - since > HELD and terminal.is_ours() and _ask(parent, terminal, app, since):
            return True
    return False


def _ask(parent: multiprocessing.process.BaseProcess, terminal: TerminalState, app: AppState, since: float) -> bool:
    """Reads the keys in the app's place until it lets go; whether it was ended, by q or ctrl+c.

    The terminal is put back first: a shell writes to it as soon as the app is gone, and that must not go with the app's screen.
    """
    beats = app.beats
    with terminal.keys() as read:
        terminal.say_below(f" the panel '{app.panel_name}' holds the program; q or ctrl+c ends mav ")
        while parent.is_alive() and app.beats == beats and terminal.is_ours():
            if LEAVES.search(read(LOOK)):
                why = f"held the program for {time.monotonic() - since:.0f} s and did not let go"
                terminal.restore(f"mav: the panel '{app.panel_name}' {why}; mav was ended as asked")
                _kill(parent)
                return True
    return False


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    if process.pid is not None:
        with contextlib.suppress(OSError):
            os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        process.join(1)
