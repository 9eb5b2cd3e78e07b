"""SQL over many recordings at once: their tables, each with a column `file`, in a private database that nothing else sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openmav.errors import UsageError
from openmav.recording.format import TABLES
from openmav.recording.reader import Recording

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
EVERY = 100_000  # instructions of SQLite between two looks at the signals
ONLY = "a query reads: give one SELECT over " + ", ".join(TABLES)


class Query:
    """The answer to a SELECT. `columns` are its names, iterating gives its rows.

    Only the tables that the query names are read from the files, which are opened read only. Raises UsageError for what is no
    SELECT, for a statement that is wrong, and for a file that is no recording.
    """

    def __init__(self, files: Sequence[Path], statement: str) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # in memory, and on the disk where it grows
        for name, sql in TABLES.items():
            self._database.execute(sql)
            columns = ", ".join(column for column, _ in self._columns(name))
            self._database.execute(f"CREATE TEMP TABLE plain_{name} AS SELECT '' AS file, {columns} FROM {name} LIMIT 0")
            self._database.execute(f"DROP TABLE {name}")
            self._database.execute(f"ALTER TABLE plain_{name} RENAME TO {name}")
        try:
            for name in self._named(statement):
                for file in files:
                    self._copy(file, name)
            self._database.set_authorizer(_read_only)
            self._database.set_progress_handler(lambda: 0, EVERY)  # Python handles signals there
            self._cursor = self._database.execute(statement)
        except sqlite3.Error as error:
            self.close()
            raise UsageError(f"{ONLY}; SQLite says: {error}") from error
        except BaseException:
            self.close()
            raise
        self.columns = tuple(str(column[0]) for column in self._cursor.description or ())

    def _columns(self, table: str) -> list[tuple[str, str]]:
        return [(row[1], row[2]) for row in self._database.execute(f"PRAGMA table_info({table})")]

    def _named(self, statement: str) -> list[str]:
        """The tables that the statement reads; nothing of it runs."""
        named: set[str] = set()

        def collect(action: int, first: str | None, second: str | None, *rest: str | None) -> int:
            if action == sqlite3.SQLITE_READ and first in TABLES:
                named.add(first)
            return _read_only(action, first, second, *rest)

        self._database.set_authorizer(collect)
        try:
            self._database.execute(f"EXPLAIN {statement}")
        finally:
            self._database.set_authorizer(None)
        return [name for name in TABLES if name in named]

    def _copy(self, file: Path, table: str) -> None:
        columns = [column for column, _ in self._columns(table)][1:]
        with Recording(file) as recording:
            if table not in recording.tables:
                return
            rows = recording.rows(f"SELECT {', '.join(columns)} FROM {table}")
        places = ", ".join("?" * (len(columns) + 1))
        self._database.executemany(f"INSERT INTO {table} VALUES ({places})", ((file.name, *row) for row in rows))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._cursor
        except (sqlite3.Error, OverflowError) as error:
            raise UsageError(f"the query ended: {error}") from error

    def close(self) -> None:
        self._database.close()


def recordings_in(place: str) -> list[Path]:
    """The recordings of a folder by name, or the one file. Raises UsageError for none."""
    path = Path(place)
    files = sorted(path.glob("*.mav")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{place} has no recordings; give a folder with .mav files")
    return files


def _read_only(action: int, first: str | None, second: str | None, *_rest: str | None) -> int:
    allowed = action in READING and not (action == sqlite3.SQLITE_FUNCTION and second == "load_extension")
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
