"""Sends the output of libraries to a log file, never to the screen.

The command calls `redirect` before a model's libraries are imported. Nothing here runs on `import openmav`: a program that
uses mav as a library keeps its own logging.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TextIO, cast

from openmav.system import native_output
from openmav.system.terminal import neutral

LIMIT = 1_000_000  # bytes; a longer log starts anew
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


class _Screen:
    """The real stderr and stdout once `redirect` has put the log in their place."""

    redirected = False
    stream: TextIO | None = None
    out: TextIO | None = None
    log: Path | None = None


def log_path() -> Path:
    """The log file in the user's own folder for logs, as the system has it (Linux: ~/.local/state/mav/log/mav.log)."""
    import platformdirs

    return Path(platformdirs.user_log_dir("mav", appauthor=False)) / "mav.log"


def open_log() -> tuple[Path, TextIO]:
    """The log, opened for appending; in the folder for temporary files where the user's own is not writable."""
    name = f"mav-{os.getuid()}.log" if hasattr(os, "getuid") else "mav.log"
    for path in (log_path(), Path(tempfile.gettempdir()) / name):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path, _open(path, anew=path.exists() and path.stat().st_size > LIMIT)
        except OSError:
            continue
    return Path(os.devnull), _open(Path(os.devnull), anew=False)


def _open(path: Path, *, anew: bool) -> TextIO:
    return cast(TextIO, _LogFile(path.open("w" if anew else "a", encoding="utf-8", errors="backslashreplace", buffering=1)))


class _LogFile(io.TextIOBase):
    """A log file that may be read in a terminal: control and escape characters become visible symbols.

    What its disk has no room for is lost: a log ends no run.
    """

    encoding = "utf-8"

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(neutral(text))
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def flush(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        super().close()


def redirect(*, descriptors: bool) -> Path:
    """Send warnings, log records, progress bars and all that is written to stderr to the log; `say` still writes to the screen.
    Returns the path of the log.

    `descriptors`: also redirect what libraries print, and what compiled libraries write to descriptors 1 and 2; `stdout` is the real one
    then. An app that draws on the terminal itself leaves those unchanged.
    """
    path, log = open_log()
    native_output.collect_left(path)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _Screen.log = path
    _Screen.stream = sys.stderr
    if descriptors:
        native = native_output.open_file(path)
        _Screen.stream, _Screen.out = _moved(sys.stderr, native), _moved(sys.stdout, native)
        os.close(native)
        if _Screen.out is not None:
            sys.__stdout__ = cast(io.TextIOWrapper, _Screen.out)  # type: ignore[misc]  # the stream whose terminal size is read
        sys.stdout = log
        atexit.register(_leave, path)
    _Screen.redirected = True
    sys.stderr = log
    log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} mav, process {os.getpid()}\n")
    logging.basicConfig(stream=log, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    return path


def _moved(stream: TextIO | None, target: int) -> TextIO | None:
    """A stream on the file of `stream`, whose descriptor becomes a duplicate of `target`; None where it is closed."""
    if stream is None:
        return None
    try:
        stream.flush()
        copy = os.dup(stream.fileno())
        os.dup2(target, stream.fileno())
    except (OSError, ValueError):
        return stream
    return os.fdopen(copy, "w", encoding=stream.encoding, errors="backslashreplace", buffering=1)


def take_descriptors(path: str | None) -> None:
    """In a process without a screen: what is printed goes to the log, what compiled libraries write goes there with `keep_native`."""
    log = Path(path or os.devnull)
    sys.stdout = sys.stderr = _open(log, anew=False)
    native = native_output.open_file(log)
    for descriptor in (1, 2):
        os.dup2(native, descriptor)
    os.close(native)


def native_descriptor() -> int | None:
    """A descriptor for what compiled libraries write, kept for the log; None where nothing is redirected."""
    return native_output.open_file(_Screen.log) if _Screen.log is not None else None


def keep_native(process: int | None = None, path: str | None = None) -> None:
    """Append the output of compiled libraries in a process that has ended, or in this one, to the log."""
    log = Path(path) if path is not None else _Screen.log
    if log is not None:
        native_output.collect(log, process)


def _leave(log: Path) -> None:
    """At the end of this process: release its file, and append its output to the log."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
    native_output.collect(log)


def stdout() -> TextIO | None:
    """The real stdout; None where it is closed."""
    return _Screen.out if isinstance(sys.stdout, _LogFile) else sys.stdout


def screen() -> TextIO | None:
    """The real stderr; None where it is closed."""
    return _Screen.stream if _Screen.redirected else sys.stderr


def say(text: str, end: str = "\n", start: str = "") -> None:
    """Write to the real stderr, control and escape characters in `text` as visible symbols; does nothing where the stream is closed."""
    stream = screen()
    if stream is None:
        return
    try:
        stream.write(start + neutral(text) + end)
        stream.flush()
    except (OSError, ValueError):
        _Screen.stream, _Screen.redirected = None, True


def record_failure(error: BaseException | str) -> Path:
    """Write an error's traceback, or one that another process has sent, to the log; returns its path."""
    path, log = open_log()
    details = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    with log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} failure\n{details}\n")
    return path
