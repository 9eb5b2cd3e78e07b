"""Ctrl-C and SIGTERM as one exception, and a way to keep a line that is being written whole.

`Interrupted` is no KeyboardInterrupt and no Exception, so that neither click nor a model's library turns it into something
else. Where a library swallows it all the same, `check` raises it again at the next token.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The reader (SIGINT) or the system (SIGTERM) asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    """What has been asked for so far: one a process, as signals are."""

    number: int | None = None
    held: bool = False
    finishing: bool = False


_state = _State()


def _handle(number: int, _frame: FrameType | None) -> None:
    again, _state.number = _state.number is not None, number
    if _state.finishing:
        os._exit(128 + number)
    if not _state.held or again:  # asked twice: do not wait for a writer that is stuck
        raise Interrupted(number)


@contextmanager
def watch_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted inside the block; a signal that the parent chose to ignore stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.number, _state.held, _state.finishing = None, False, False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def hold() -> Iterator[None]:
    """A signal inside the block is raised at the end of the outermost one; a second signal at once."""
    before, _state.held = _state.held, True
    try:
        yield
    finally:
        _state.held = before
    if not before:
        check()


def check() -> None:
    """Raise Interrupted where a signal came and nobody has acted on it."""
    if _state.number is not None and not _state.finishing:
        raise Interrupted(_state.number)


def finish() -> None:
    """The process is on its way out: the next signal ends it at once."""
    _state.finishing = True


@contextmanager
def ignored_by_children() -> Iterator[None]:
    """A process started inside the block does not see Ctrl-C, from its first instruction on; its parent ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
