"""Output that compiled libraries write to descriptors 1 and 2: kept in a file per process, then appended to the log as visible symbols.

A file, not a pipe: a library that holds Python's lock would wait forever for the pipe's reader, and the last output of a process that
crashes would be lost. The file of a process that has ended is appended to the log by its parent, or by the next command.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from openmav.system.terminal import neutral

NAME = "native-{}.raw"  # beside the log, with the process's id
MOST = 1_000_000  # bytes of it that the log gets, the last ones


def open_file(log: Path) -> int:
    """A descriptor for appending to this process's file; of the null device where it can't be created."""
    collect(log)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        return os.open(_file(log, os.getpid()), flags, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def collect(log: Path, process: int | None = None) -> None:
    """Append the output of a process (None: this one) to the log, control and escape characters as symbols, and delete its file.

    On Windows the file must not be open anywhere. Does nothing where there is no file.
    """
    file = _file(log, process or os.getpid())
    taken = file.with_suffix(".taken")
    with contextlib.suppress(OSError):
        os.replace(file, taken)
        with taken.open("rb") as opened:
            opened.seek(max(0, taken.stat().st_size - MOST))
            text = opened.read().decode("utf-8", "backslashreplace")
        taken.unlink()
        if text:
            with log.open("a", encoding="utf-8", errors="backslashreplace") as out:
                out.write(neutral(text if text.endswith("\n") else text + "\n"))


def collect_left(log: Path) -> None:
    """The same for every process that has ended."""
    with contextlib.suppress(OSError):
        for file in log.parent.glob(NAME.format("*")):
            number = file.name.removeprefix("native-").removesuffix(".raw")
            if number.isdecimal() and not _runs(int(number)):
                collect(log, int(number))


def _file(log: Path, process: int) -> Path:
    return log.with_name(NAME.format(process))


def _runs(process: int) -> bool:
    """Whether the process is running; always False on Windows, where a file in use can't be moved."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
