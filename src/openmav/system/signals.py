"""Ctrl-C and SIGTERM as one exception, and a way to keep a line that is being written whole.

`Interrupted` is no KeyboardInterrupt and no Exception, so that neither click nor a model's library converts it. Where a
library swallows it nevertheless, `check` raises it again at the next token.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from openmav.errors import Interruption

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP") if hasattr(signal, name))


@contextmanager
def held() -> Iterator[None]:
    """The signals that end a process wait until the block is done: a child that is being started is not left with half of its task.

    The child begins with them held, and calls `release`. Nothing is held where the system can't.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release() -> None:
    """In a child that was started while signals were held: what came meanwhile is obeyed now."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


class Interrupted(Interruption):
    """The user (SIGINT, SIGQUIT) or the system (SIGTERM, SIGHUP) asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    """The signals so far; one per process, as signals are."""

    number: int | None = None
    deferred: bool = False
    finishing: bool = False


_state = _State()


def _handle(number: int, _frame: FrameType | None) -> None:
    again, _state.number = _state.number is not None, number
    if _state.finishing:
        os._exit(128 + number)
    if not _state.deferred or again:  # the second signal: do not wait for a writer that is stuck
        raise Interrupted(number)


@contextmanager
def watch_signals() -> Iterator[None]:
    """Turn the signals in ENDING into Interrupted inside the block; one that the parent chose to ignore stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.number, _state.deferred, _state.finishing = None, False, False
    before = {number: signal.getsignal(number) for number in ENDING}
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
    """Context manager: a signal is raised at the end of the outermost block; a second signal at once."""
    before, _state.deferred = _state.deferred, True
    try:
        yield
    finally:
        _state.deferred = before
    if not before:
        check()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Context manager: no signal raises inside the block, Python's own KeyboardInterrupt neither; it does so at the end.

    An exception in a callback of compiled code does not pass through that code: it would go on, with a wrong answer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if own:
        signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        with hold():
            yield
    finally:
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def check() -> None:
    """Raises Interrupted where a signal came that has not been handled yet."""
    if _state.number is not None and not _state.finishing:
        raise Interrupted(_state.number)


def pending() -> int | None:
    """The number of the signal that came and has not been handled yet."""
    return _state.number


def forget() -> None:
    """Mark the signals so far as handled; the next one counts again."""
    _state.number = None


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
