"""A call of the C library at a time of its own, whatever Python does then."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

THREAD, CLOCK = 2, 1  # SIGEV_THREAD: the timer calls a function; CLOCK_MONOTONIC


class _Event(ctypes.Structure):
    """struct sigevent of Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 64),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: every so many seconds and nanoseconds, first after so many."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every", "every_ns", "after", "after_ns"))


def call_later(seconds: float, function: str, argument: int | bytes) -> Callable[[], object]:
    """Calls the C library's function of one argument then, in a thread that needs no lock of Python; returns what takes that back.

    Raises OSError or AttributeError where the system has no such timer: it has one on Linux.
    """
    if sys.platform != "linux":
        raise OSError("no timer that calls a function")
    library = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(argument) if isinstance(argument, bytes) else None
    value = argument if text is None else ctypes.addressof(text)
    event = _Event(value=value, notify=THREAD, function=ctypes.cast(getattr(library, function), ctypes.c_void_p))
    timer = ctypes.c_void_p()
    if library.timer_create(CLOCK, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    whole, part = divmod(seconds, 1)
    times = _Times(0, 0, int(whole), int(part * 1e9))
    library.timer_settime(timer, 0, ctypes.byref(times), None)

    def take_back(kept: Any = (text, event)) -> None:
        library.timer_delete(timer)

    return take_back
