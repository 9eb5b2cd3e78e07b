"""The terminal belongs to the app while it runs: what others write to descriptors 1 and 2 goes to the log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from openmav.system.logs import keep_native, native_descriptor


@contextmanager
def terminal_to_itself() -> Iterator[None]:
    """Gives the app descriptors of its own on the terminal: sys.__stderr__, which Textual draws on, sys.__stdout__, whose size it takes.

    Nothing happens where Textual draws elsewhere (Windows), or where there is no terminal at both.
    """
    if os.name == "nt" or sys.__stderr__ is None or not (os.isatty(1) and os.isatty(2)):
        yield
        return
    before, kept = (sys.__stdout__, sys.__stderr__), (os.dup(1), os.dup(2))
    target = _elsewhere()
    own = [os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace") for descriptor in (1, 2)]
    sys.__stdout__, sys.__stderr__ = own  # type: ignore[misc]
    try:
        for descriptor in (1, 2):
            os.dup2(target, descriptor)
        yield
    finally:
        for stream in own:
            with suppress(OSError, ValueError):  # the terminal may be gone
                stream.flush()
        for copy, descriptor in zip(kept, (1, 2)):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(target)
        keep_native()
        for stream in own:
            with suppress(OSError, ValueError):
                stream.close()
        sys.__stdout__, sys.__stderr__ = before  # type: ignore[misc]


def _elsewhere() -> int:
    """A descriptor of what goes to the log, of stderr if that is a file of the caller, else of the null device."""
    native = native_descriptor()
    if native is not None:
        return native
    try:
        log = sys.stderr.fileno()
        if not os.isatty(log):
            return os.dup(log)
    except (OSError, ValueError, AttributeError):
        pass
    return os.open(os.devnull, os.O_WRONLY)
