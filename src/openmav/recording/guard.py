"""What is asked of a file before it is read, and all that a query of it may do: nothing that a file brings can run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from openmav.errors import UsageError
from openmav.recording.format import APPLICATION, MAGIC, TABLES, VERSION

ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
FUNCTIONS = {"length", "sum", "count", "max", "min", "coalesce", "total", "typeof"}


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
