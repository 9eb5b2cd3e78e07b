"""Where the words of libraries go: a log file, never the screen.

The command calls `redirect` before a model's libraries are imported. Nothing here runs on `import openmav`: a program that
uses mav as a library keeps its own logging.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TextIO, cast

LIMIT = 1_000_000  # bytes; a longer log starts anew
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


class _Screen:
    """The real stderr once `redirect` has put the log in its place."""

    redirected = False
    stream: TextIO | None = None


def log_path() -> Path:
    """The log file in the reader's own folder for logs, as the system has it (Linux: ~/.local/state/mav/log/mav.log)."""
    import platformdirs

    return Path(platformdirs.user_log_dir("mav", appauthor=False)) / "mav.log"


def open_log() -> tuple[Path, TextIO]:
    """The log, opened for appending; in the folder for temporary files where the reader's own cannot be written."""
    name = f"mav-{os.getuid()}.log" if hasattr(os, "getuid") else "mav.log"
    for path in (log_path(), Path(tempfile.gettempdir()) / name):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path, _open(path, anew=path.exists() and path.stat().st_size > LIMIT)
        except OSError:
            continue
    return Path(os.devnull), _open(Path(os.devnull), anew=False)


def _open(path: Path, *, anew: bool) -> TextIO:
    return cast(TextIO, path.open("w" if anew else "a", encoding="utf-8", errors="backslashreplace", buffering=1))


def redirect(*, descriptors: bool) -> Path:
    """Send warnings, log records, progress bars and all that is written to stderr to the log; `say` still reaches the screen.
    Where the log is.

    `descriptors`: also what compiled libraries write to descriptor 2. An app that draws on the terminal itself leaves
    that as it is.
    """
    path, log = open_log()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _Screen.stream = _copy_of_stderr(log) if descriptors else sys.stderr
    _Screen.redirected = True
    sys.stderr = log
    log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} mav, process {os.getpid()}\n")
    logging.basicConfig(stream=log, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    return path


def _copy_of_stderr(log: TextIO) -> TextIO | None:
    """Put the log at descriptor 2; a stream on the old one, None where it is closed."""
    screen = sys.stderr
    if screen is None:
        return None
    try:
        screen.flush()
        copy = os.dup(screen.fileno())
        os.dup2(log.fileno(), screen.fileno())
    except (OSError, ValueError):
        return screen
    return os.fdopen(copy, "w", encoding=screen.encoding, errors="backslashreplace", buffering=1)


def screen() -> TextIO | None:
    """The real stderr; None where it is closed."""
    return _Screen.stream if _Screen.redirected else sys.stderr


def say(text: str, end: str = "\n") -> None:
    """Write to the real stderr; nothing happens where nobody reads it."""
    stream = screen()
    if stream is None:
        return
    try:
        stream.write(text + end)
        stream.flush()
    except (OSError, ValueError):
        _Screen.stream, _Screen.redirected = None, True


def record_failure(error: BaseException | str) -> Path:
    """Write an error's traceback, or one that another process has sent, to the log; where that is."""
    path, log = open_log()
    details = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    with log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} failure\n{details}\n")
    return path
