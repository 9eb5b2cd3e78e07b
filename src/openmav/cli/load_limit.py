"""How long a model may take to load in this process, where no parent could end it."""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openmav.errors import LoadTimeoutError
from openmav.settings import LONGEST_WAIT
from openmav.system.logs import say, screen, stdout
from openmav.system.native_timer import call_later
from openmav.system.signals import Interrupted, forget
from openmav.system.terminal import ERASE_LINE, is_terminal

GRACE = 3.0  # seconds for the main thread to clean up and leave in order


@contextmanager
def load_limit(seconds: float) -> Iterator[None]:
    """Raise LoadTimeoutError in the block once it has run for so long; 0 is no limit. For the main thread.

    A library that does not come back to Python meanwhile can't be interrupted: the process ends then, with the same line and exit code.
    So it does on Linux where the library even keeps Python's lock; elsewhere it ends then with exit code 1. The traceback is in the log.
    """
    if not 0 < seconds <= LONGEST_WAIT or threading.current_thread() is not threading.main_thread():
        yield
        return
    done, late = threading.Event(), threading.Event()
    watch = threading.Thread(target=_watch, args=(seconds, done, late), daemon=True, name="mav load limit")
    native = _end_natively(seconds)
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):  # no log to write to
        faulthandler.dump_traceback_later(seconds + 2 * GRACE, exit=not native)
    watch.start()
    try:
        yield
    except Interrupted:
        if not late.is_set():
            raise
        forget()
        raise LoadTimeoutError(seconds) from None
    finally:
        done.set()
        faulthandler.cancel_dump_traceback_later()
        for take_back in native:
            take_back()
        watch.join()


def _end_natively(seconds: float) -> list[Callable[[], object]]:
    """Prepares the same end without Python, a little later; what takes it back, nothing where the system has no way to do it."""
    stream = screen()
    try:
        steps = [call_later(seconds + 2 * GRACE + 1, "_exit", LoadTimeoutError.exit_code)]
        if stream is not None:
            start = ERASE_LINE if is_terminal(stream) else ""
            line, where = shlex.quote(f"{start}mav: {LoadTimeoutError(seconds)}"), f"/proc/{os.getpid()}/fd/{stream.fileno()}"
            steps.append(call_later(seconds + 2 * GRACE, "system", f"printf '%s\\n' {line} >>{where}".encode()))
    except (OSError, AttributeError, ValueError):
        return []
    return steps


def _watch(seconds: float, done: threading.Event, late: threading.Event) -> None:
    if done.wait(seconds):
        return
    late.set()
    if hasattr(signal, "pthread_kill"):  # which also ends a system call that waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
    if done.wait(GRACE):
        return
    say(f"mav: {LoadTimeoutError(seconds)}", start=ERASE_LINE if is_terminal(screen()) else "")
    with contextlib.suppress(OSError, ValueError):
        if (out := stdout()) is not None:
            out.flush()
    os._exit(LoadTimeoutError.exit_code)
