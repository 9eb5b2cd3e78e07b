"""What of a step is read from the file only when it is looked at: its arrays, and the texts of the tokens that they name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record import frozen
from openmav.recording.guard import MOST_BYTES
from openmav.recording.rows import DTYPES, OWN_ROWS, PIECES, BadDataError, array_of, measure_name, size_of
from openmav.recording.texts import ids_in, sum_of_text

MOST_KEPT = 64 * 2**20  # bytes of what was read last
MOST_ARRAYS = 1000  # of a step
MOST_TEXTS = 2_000_000
Rows: TypeAlias = list[tuple[Any, ...]]
T = TypeVar("T")


def bytes_of(*columns: str) -> str:
    """What a row takes, in SQL; `length` alone ends at a NUL."""
    return " + ".join(f"coalesce(length(CAST({column} AS BLOB)), 0)" for column in columns)


class ReadCache:
    """What was read last, of about `most` bytes together."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._entries: dict[Any, tuple[Any, int]] = {}

    def get(self, key: Any, read: Callable[[], T], size_of: Callable[[T], int]) -> T:
        """The entry; `read` makes it where it is not there, and the oldest are let go for it."""
        if key not in self._entries:
            value = read()
            size = size_of(value)
            while self._entries and self._size + size > self._most:
                self._size -= self._entries.pop(next(iter(self._entries)))[1]
            self._entries[key], self._size = (value, size), self._size + size
        entry: T = self._entries[key][0]
        return entry

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


class StoredSteps:
    """Reads from a file by the numbers of its steps. `rows` answers a query, `problem` takes a line about what can't be read."""

    def __init__(self, rows: Callable[..., Rows], problem: Callable[[str], None], has_texts: bool) -> None:
        self._rows, self._problem, self._has_texts = rows, problem, has_texts
        self._cache = ReadCache(MOST_KEPT)
        self._texts: Mapping[int, str] | None = None  # read when one is asked for

    def forget(self) -> None:
        """The file has changed."""
        self._cache.clear()
        self._texts = None

    def names(self, number: int) -> Mapping[str, tuple[str, ...]]:
        """The names of a step's arrays, by OWN_ROWS; one whose size is not what its shape says is left out."""
        return self._cache.get(("names", number), lambda: self._read_names(number), lambda names: 100 * sum(map(len, names.values())))

    def _read_names(self, number: int) -> Mapping[str, tuple[str, ...]]:
        names: dict[str, list[str]] = {part: [] for part in OWN_ROWS}
        query = "SELECT name, dtype, shape, CASE typeof(data) WHEN 'blob' THEN length(data) ELSE -1 END FROM arrays WHERE step = ?"
        limits = f"{bytes_of('name', 'dtype', 'shape')} < 500 LIMIT {MOST_ARRAYS}"
        for pointer, dtype, shape, size in self._rows_if_any(f"{query} AND {limits}", number):
            try:
                if size != size_of(dtype, shape) or size > MOST_BYTES or not isinstance(pointer, str):
                    raise BadDataError("is not what its shape says, or too large")
                if pointer not in PIECES:
                    part, name = measure_name(pointer)
                    names[part].append(name)
            except BadDataError as error:
                self._problem(f"'{pointer}' of the step with the number {number} {error}")
        return {part: tuple(entries) for part, entries in names.items()}

    def _rows_if_any(self, query: str, *values: Any) -> Rows:
        """None of them, and a problem, where the file is damaged there."""
        try:
            return self._rows(query, *values)
        except UsageError as error:
            self._problem(str(error))
            return []

    def pieces(self, number: int, pointer: str, values: Mapping[str, NDArray[Any]], own: Mapping[int, str]) -> Mapping[int, str]:
        """The texts of the tokens that a step names, from those of the file, and its `own`."""
        return self._cache.get((pointer, number), lambda: self._read_pieces(number, pointer, values, own), lambda pieces: 120 * len(pieces))

    def _read_pieces(self, number: int, pointer: str, values: Mapping[str, NDArray[Any]], own: Mapping[int, str]) -> Mapping[int, str]:
        ids: Iterable[int] = ids_in(values)
        query = "SELECT dtype, shape, data FROM arrays WHERE step = ? AND name = ? AND typeof(data) = 'blob' AND length(data) <= ?"
        for dtype, shape, data in self._rows_if_any(query, number, pointer, MOST_BYTES):
            with contextlib.suppress(BadDataError, ValueError, TypeError, RecursionError):  # `names` says so
                ids = array_of(dtype, json.loads(shape), data).ravel().tolist()
        texts = self.texts()
        lacking = [token_id for token_id in ids if token_id not in texts and token_id not in own]
        if lacking:
            self._problem(f"there is no text of token {lacking[0]}, which the step with the number {number} names")
        return {**{token_id: texts[token_id] for token_id in ids if token_id in texts}, **own}

    def texts(self) -> Mapping[int, str]:
        """{token id: text} of all tokens that are named in measures; those that are not as they were written are left out."""
        if self._texts is None:
            self._texts = self._read_texts() if self._has_texts else {}
        return self._texts

    def _read_texts(self) -> Mapping[int, str]:
        size = self._rows_if_any(f"SELECT total({bytes_of('text', 'sum')}) FROM texts")
        if not size or size[0][0] > MOST_BYTES:
            self._problem("the texts of the tokens in its measures are too large, or cannot be read")
            return {}
        rows = self._rows_if_any(f"SELECT id, text, sum FROM texts LIMIT {MOST_TEXTS}")
        texts = {number: text for number, text, total in rows if isinstance(text, str) and sum_of_text(number, text) == total}
        if len(texts) < len(rows):
            self._problem(f"{len(rows) - len(texts)} of {len(rows)} texts of tokens are not as they were written")
        return texts

    def array(self, number: int, part: str, name: str) -> NDArray[Any]:
        """An array of a step, frozen; all NaN (ids: -1) where its page is damaged."""
        pointer = f"{part}/{name.replace('~', '~0').replace('/', '~1')}"
        return self._cache.get((pointer, number), lambda: self._array(number, pointer), lambda array: array.nbytes + 200)

    def _array(self, number: int, pointer: str) -> NDArray[Any]:
        rows: Rows = []
        try:
            rows = self._rows("SELECT dtype, shape, data FROM arrays WHERE step = ? AND name = ?", number, pointer)
            return array_of(rows[0][0], json.loads(rows[0][1]), rows[0][2])
        except (BadDataError, UsageError, ValueError, TypeError, IndexError) as error:
            self._problem(f"'{pointer}' of the step with the number {number} cannot be read: {error}")
            return self._nothing(number, pointer)

    def _nothing(self, number: int, pointer: str) -> NDArray[Any]:
        try:
            dtype, shape = self._rows("SELECT dtype, shape FROM arrays WHERE step = ? AND name = ?", number, pointer)[0]
            return frozen(np.full(json.loads(shape), -1 if dtype == "<i8" else np.nan, DTYPES[dtype]))
        except (UsageError, IndexError, ValueError, TypeError, KeyError):
            return frozen(np.empty(0, np.float32))


class StoredValues(Mapping[str, NDArray[Any]]):
    """The arrays of a step, or those of its baseline."""

    def __init__(self, stored: StoredSteps, number: int, part: str) -> None:
        self._stored, self._number, self._part = stored, number, part

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(name)
        return self._stored.array(self._number, self._part, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored.names(self._number)[self._part])

    def __len__(self) -> int:
        return len(self._stored.names(self._number)[self._part])

    def __contains__(self, name: object) -> bool:
        return name in self._stored.names(self._number)[self._part]


class StoredPieces(Mapping[int, str]):
    """The texts of the token ids in a step's values. `own`: those that stand in the step itself."""

    def __init__(self, stored: StoredSteps, number: int, pointer: str, values: Mapping[str, NDArray[Any]], own: Mapping[int, str]) -> None:
        self._stored, self._place, self._values, self._own = stored, (number, pointer), values, own

    def _all(self) -> Mapping[int, str]:
        return self._stored.pieces(*self._place, self._values, self._own)

    def __getitem__(self, token_id: int) -> str:
        return self._all()[token_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
