"""What is asked of a file before it is read, and all that a query of it may do: nothing that a file brings can run."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from operator import methodcaller
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openmav.errors import UsageError
from openmav.recording.format import APPLICATION, MAGIC, TABLES, VERSION

MOST_BYTES = 64 * 2**20  # of one array, or of one text
MOST_PARSED = 64 * 2**20  # bytes of memory for what JSON texts that are read together hold
SMALL = 100_000  # characters of JSON that need no estimate
# What reading a value of another form than was written raises.
WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)
LIMIT_LENGTH = 0  # SQLITE_LIMIT_LENGTH, which Python 3.10 has no name for
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
OF_SEVERAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # the end of a journal that names another file, which SQLite would delete
FUNCTIONS = {"length", "sum", "count", "max", "min", "coalesce", "total", "typeof"}


def memory_of(text: str) -> int:
    """Bytes that Python's values of a JSON text take at most, about: a list of empty lists takes twenty times its text."""
    return 240 * text.count("{") + 72 * (text.count("[") + text.count(",")) + 4 * len(text)


def parsed(text: str, room: int = MOST_PARSED) -> Any:
    """The values of a JSON text. Raises ValueError for no JSON, and for one whose values could take more than `room` bytes."""
    if len(text) > SMALL and memory_of(text) > room:
        raise ValueError("too large")
    return json.loads(text)


def authorize(action: int, first: str | None, second: str | None, *_rest: str | None) -> int:
    """Only what mav itself asks for: reading the tables, plain functions, and two pragmas."""
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_OK if second in FUNCTIONS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in ("data_version", "quick_check") else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ:
        known = first in TABLES or first in ("sqlite_master", "sqlite_schema")
        return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY


def check_head(path: Path) -> None:
    """Raises UsageError before SQLite sees a file that is no recording."""
    try:
        if not path.is_file():
            raise UsageError(f"{path} is a folder or device, not a recording" if path.exists() else f"there is no file {path}")
        with path.open("rb") as file:
            head = file.read(100)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(head) < 100 or head[:16] != MAGIC or int.from_bytes(head[68:72], "big") != APPLICATION:
        raise UsageError(f"{path} is not a recording of mav")
    version = int.from_bytes(head[60:64], "big")
    if version != VERSION:
        raise UsageError(f"{path} has version {version} of the format; this mav reads version {VERSION}")


def connect(path: Path) -> sqlite3.Connection:
    """Read only; where the folder takes no lock files and no journal is left, as a file that doesn't change. Raises UsageError."""
    try:
        try:
            return _opened(path, "?mode=ro")
        except sqlite3.OperationalError:
            if _is_left(path, "-wal"):
                raise
            unfinished = _is_left(path, "-journal")
            if unfinished:
                _undo(path)
            return _opened(path, "?mode=ro" if unfinished else "?mode=ro&immutable=1")
    except sqlite3.OperationalError as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except sqlite3.Error as error:
        raise UsageError(f"{path} is damaged: {error}; mav recover may save what is sound in it") from error


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(_address(path) + mode, uri=True, isolation_level=None, check_same_thread=False, timeout=2.0)
    try:
        database.text_factory = methodcaller("decode", "utf-8", "replace")
        for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0", "cache_size=-16000"):
            database.execute(f"PRAGMA {pragma}")
        if hasattr(database, "setlimit"):
            database.setlimit(LIMIT_LENGTH, MOST_BYTES + 2**20)
        database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        database.set_authorizer(authorize)
    except BaseException:
        database.close()
        raise
    return database


def _address(path: Path) -> str:
    """The file as a URI, without a mode."""
    return "file:" + quote(os.path.abspath(path).replace(os.sep, "/"), safe="/:")


def _is_left(path: Path, suffix: str) -> bool:
    """Whether a journal lies beside the file."""
    journal = Path(f"{path}{suffix}")
    return journal.exists() and journal.stat().st_size > 0


def _undo(path: Path) -> None:
    """Has SQLite undo what a writer that was killed has left half written, by the rollback journal beside the file; not while one writes.

    Raises UsageError for a journal that no recording has, and where the file can't be written.
    """
    try:
        with open(f"{path}-journal", "rb") as file:
            head = file.read(28)
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(OF_SEVERAL)))
            end = file.read()
        pages, size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[24:28], "big")
        if end == OF_SEVERAL or pages * size > path.stat().st_size:
            raise UsageError(f"cannot read {path}: the journal beside it is none of a recording")
        with closing(sqlite3.connect(f"{_address(path)}?mode=rw", uri=True, isolation_level=None, timeout=2.0)) as database:
            database.execute("PRAGMA trusted_schema=OFF")
            database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    except (sqlite3.OperationalError, OSError) as error:
        why = "its last transaction was not finished, and undoing it writes to the file"
        raise UsageError(f"cannot read {path}: {why}: {error}") from error
