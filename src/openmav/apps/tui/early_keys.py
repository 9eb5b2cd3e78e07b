"""Keys that are pressed while Textual is imported, a second or more: the one that quits does so at once, the others wait for the app."""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import sys
import threading
from types import TracebackType
from typing import Any


class EarlyKeys:
    """Reads the terminal inside of a `with` block of the main thread. `typed`: what came, which the app has yet to get.

    `quit_keys`: their names, separated by commas. Where one that is a single character comes alone, `quits` is set and the block is left
    as by Ctrl-C, whatever it imports. Nothing is read where stdin is no terminal of this process, and on Windows.
    """

    def __init__(self, quit_keys: str) -> None:
        self._quit_keys = {name.encode() for name in quit_keys.split(",") if len(name) == 1}
        self._bytes = b""
        self._before: list[Any] | None = None  # the terminal's attributes
        self.quits = False

    @property
    def typed(self) -> str:
        return self._bytes.decode("utf-8", "replace")

    def __enter__(self) -> EarlyKeys:
        file = sys.__stdin__
        if os.name == "nt" or file is None or file.closed or not file.isatty():
            return self
        import termios

        self._terminal = file.fileno()
        try:
            if os.tcgetpgrp(self._terminal) != os.getpgrp():
                return self
            before, attributes = termios.tcgetattr(self._terminal), termios.tcgetattr(self._terminal)
            attributes[3] &= ~(termios.ICANON | termios.ECHO)  # keys come one by one; Ctrl-C stays a signal
            termios.tcsetattr(self._terminal, termios.TCSANOW, attributes)
        except (OSError, termios.error):
            return self
        self._before = before
        self._ending, self._end = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True, name="mav early keys")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is None:
            return
        try:
            os.close(self._end)
            self._thread.join()
        finally:
            os.close(self._ending)
            self.put_back()
        if self.quits and error is None:  # something in the block has swallowed it
            raise KeyboardInterrupt

    def put_back(self) -> None:
        """The terminal's own attributes; may be called again, as where a second signal has cut the end of the block short."""
        if self._before is None:
            return
        import termios

        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)

    def _read(self) -> None:
        while True:
            ready = select.select([self._terminal, self._ending], [], [])[0]
            if self._terminal not in ready:
                return
            try:
                data = os.read(self._terminal, 4096)
            except OSError:
                return
            self._bytes += data
            if not data or self._ending in ready:
                return
            if data in self._quit_keys and not self.quits:
                self.quits = True
                _thread.interrupt_main()
