"""How much memory a process has in use, where that is known without help from outside; psutil knows it everywhere."""

from __future__ import annotations

import os


def resident_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process (None: this one), bytes; None where it is gone, or where neither the system nor psutil tells."""
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
