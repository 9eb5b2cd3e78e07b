"""Commands on their way to the engine: numbered, repeated ones made one, never more than a bounded number."""

from __future__ import annotations

import threading
from collections import deque
from typing import TypeAlias

from openmav.protocol.commands import (
    Advance,
    Attribute,
    Back,
    Command,
    Forward,
    Intervene,
    Pause,
    PreviewSampling,
    Resume,
    SetBreakpoints,
    SetPace,
    SetSampling,
    SweepSites,
    Want,
)

MOST = 256  # commands that wait
# Of these, one after the other, the last says all of it, whatever those before it said.
LAST_WINS = (Want, SetSampling, PreviewSampling, SetPace, SetBreakpoints, Intervene, Attribute, SweepSites)
ONCE = (Want, PreviewSampling)  # of several that wait, only the last counts, whatever stands between them
COUNTED = (Advance, Back, Forward)
Numbered: TypeAlias = tuple[int, Command]


def merged(first: Command, second: Command) -> Command | None:
    """One command that does what these two do, one right after the other; None where there is none."""
    if isinstance(first, Resume | Pause) and isinstance(second, Resume | Pause):
        return second
    if type(first) is not type(second):
        return None
    if isinstance(first, COUNTED) and isinstance(second, COUNTED):
        return type(second)(max(1, first.count) + max(1, second.count))
    return second if isinstance(second, LAST_WINS) else None


def append(waiting: deque[Numbered], number: int, command: Command) -> None:
    """Put a command last; it takes the number of the newest that it stands for."""
    if isinstance(command, ONCE) and any(type(one) is type(command) for _, one in waiting):
        others = [one for one in waiting if type(one[1]) is not type(command)]
        waiting.clear()
        for one in others:
            append(waiting, *one)
    both = merged(waiting[-1][1], command) if waiting else None
    if both is not None:
        waiting.pop()
    waiting.append((number, command if both is None else both))


class CommandQueue:
    """What one thread puts in and another takes out."""

    def __init__(self, most: int = MOST) -> None:
        self._waiting: deque[Numbered] = deque()
        self._most = most
        self._changed = threading.Condition()
        self._closed = False

    def put(self, number: int, command: Command) -> bool:
        """Never waits. False where too many wait already, and this one is not taken."""
        with self._changed:
            before = list(self._waiting)
            append(self._waiting, number, command)
            if len(self._waiting) > self._most:
                self._waiting = deque(before)
                return False
            self._changed.notify()
            return True

    def take(self) -> Numbered | None:
        """The next one, once there is one; None once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
