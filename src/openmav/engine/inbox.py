"""The commands that have come through the engine's pipe and wait for their turn."""

from __future__ import annotations

from collections import deque
from multiprocessing.connection import Connection

from openmav.engine.queue import Numbered, append
from openmav.protocol.commands import Command


class AppGoneError(Exception):
    """The app has gone."""


class Inbox:
    """Every method raises AppGoneError once the app is gone."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.waiting: deque[Numbered] = deque()

    def poll(self, wait: float | None) -> bool:
        """Whether a command comes within so many seconds, or waits already; None: wait until one does."""
        return bool(self.waiting) or self._comes(wait)

    def take(self) -> Numbered:
        """The next command with its number, once all that have come are here and repeated ones have become one."""
        self.receive()
        return self.waiting.popleft()

    def receive(self) -> None:
        """Take all commands out of the pipe."""
        while self._comes(0.0):
            try:
                append(self.waiting, *self._pipe.recv())
            except (EOFError, OSError) as error:
                raise AppGoneError from error

    def holds(self, kind: type[Command], *, other: bool = False) -> bool:
        """Whether a command of this kind waits; `other`: one of any other kind."""
        return any(isinstance(command, kind) is not other for _, command in self.waiting)

    def _comes(self, wait: float | None) -> bool:
        try:
            return self._pipe.poll(wait)
        except (EOFError, OSError) as error:
            raise AppGoneError from error
