"""The memory use of a process, where the system reports it (psutil does everywhere), and whether memory ran out."""

from __future__ import annotations

import errno
import os

from openmav.errors import message_of

NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "failed to allocate", "bad_alloc", "bad allocation")


def resident_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process (None: this one), bytes; None where the process has ended or it is unknown."""
    pid = os.getpid() if pid is None else pid
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # Linux
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return _by_psutil(pid)


def _by_psutil(pid: int) -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the computer or of an accelerator, however a library reports it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in message_of(error).lower() for words in NO_MEMORY)
