"""Reads a recording, whoever made it: nothing in the file can run, and no more is read than a size that was checked first."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record import Branch, ModelInfo, Prompt, Step, frozen
from openmav.recording.facts import read_model, read_prompt
from openmav.recording.format import SCHEMA, TABLES
from openmav.recording.guard import MOST_BYTES, check_head, connect
from openmav.recording.rows import DTYPES, OWN_ROWS, BadDataError, array_of, measure_name, read_context, size_of, step_of

MOST_OPEN = 192 * 2**20  # of all that is read when a file is opened
MOST_ROWS = 2_000_000
MOST_BRANCHES = 10_000
STEP_COLUMNS = (
    "position, token_id, token, text, special, forced, logprob, rank, entropy, seconds_model, seconds_capture, seconds_sample"  # COLUMNS
)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """What is read has no cycles: the collector would go through all of it again and again, a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StepAt(NamedTuple):
    """A step's own row: its number, and the step."""

    number: int
    step: Step


class StoredValues(Mapping[str, NDArray[Any]]):
    """The arrays of a step, read from the file when they are asked for."""

    def __init__(self, recording: Recording, number: int, names: tuple[str, ...], part: str) -> None:
        self._recording, self._number, self._names, self._part = recording, number, names, part

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return self._recording.array(self._number, self._part, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


class Recording:
    """An open file. `problems` are lines about what in it could not be read.

    Raises UsageError, in one line, for what is no recording, or one that can't be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self._cache: dict[tuple[int, str, str], NDArray[Any]] = {}
        check_head(self.path)
        self._database = connect(self.path)
        try:
            self._check_schema()
            self.meta = self._meta()
            self.contexts = dict(self._contexts())
        except BaseException:
            self._database.close()
            raise

    def _check_schema(self) -> None:
        """The file has mav's tables and nothing else: no view, trigger, virtual table, or other index."""
        rows = self.rows("SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE length(name) < 200 LIMIT 100")
        for kind, name, sql in rows:
            if not (kind == "index" and name.startswith("sqlite_autoindex_") and not sql) and TABLES.get(name) != sql:
                raise UsageError(f"{self.path} is not a sound recording: it brings the {kind} '{name}', which no recording has")
        if {name for _, name, _ in rows} < set(SCHEMA):
            raise UsageError(f"{self.path} is not a whole recording: it lacks a table")
        self.tables = frozenset(name for _, name, _ in rows if name in TABLES)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Raises UsageError where the file is damaged there."""
        try:
            return self._database.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            raise UsageError(f"{self.path} is damaged: {error}; mav recover may save what is sound in it") from error

    # ---- what it says of the run ----

    def _meta(self) -> dict[str, Any]:
        result = {}
        rows = self.rows("SELECT name, value FROM meta WHERE length(value) < ? AND length(name) < 100 LIMIT 100", MOST_BYTES)
        for name, value in rows:
            with contextlib.suppress(ValueError, RecursionError, TypeError):
                result[str(name)] = json.loads(value)
        return result

    def _contexts(self) -> Iterator[tuple[int, str]]:
        yield from self.rows("SELECT id, content FROM contexts WHERE length(content) < 1000000 LIMIT 100000")

    @property
    def info(self) -> ModelInfo | None:
        """The model; None where the file does not say which."""
        result: ModelInfo | None = self._tried(lambda: read_model(self.meta["model"]), "which model it was")
        return result

    def state(self, name: str, default: Any = None) -> Any:
        state = self.meta.get("state")
        return state.get(name, default) if isinstance(state, dict) else default

    def _tried(self, read: Callable[[], Any], what: str) -> Any:
        try:
            return read()
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            line = f"it does not say {what}"
            if line not in self.problems:
                self.problems.append(line)
            return None

    # ---- the text ----

    def branches(self) -> list[Branch]:
        """All branches with all their steps, undone ones too, the first branch first. Steps that can't be read are left out."""
        self._check_sizes()
        with _no_collection():
            own = self._steps()
        whole: dict[int, Branch] = {}
        rows = self.rows(
            "SELECT id, name, parent, at, prompt FROM branches WHERE length(prompt) < ? ORDER BY id LIMIT ?", MOST_BYTES, MOST_BRANCHES
        )
        for number, name, parent, at, prompt in rows:
            read = self._read_prompt(number, prompt)
            if read is None or not isinstance(name, str) or not isinstance(at, int) or at < 0 or name in {b.name for b in whole.values()}:
                self._problem(f"branch {number} cannot be read")
                continue
            before = whole.get(parent) if parent is not None else None
            steps = {step.index: step for step in (before.steps[:at] if before else ())}
            steps.update({index: one.step for index, one in own.get(number, {}).items()})
            sound = next((index for index in range(len(steps) + 1) if index not in steps), len(steps))
            if sound < len(steps):
                self._problem(f"branch '{name}' lacks token {sound}; what is after it is left out")
            whole[number] = Branch(name, read, tuple(steps[i] for i in range(sound)), before.name if before else None, at if before else 0)
        return list(whole.values())

    def _problem(self, line: str) -> None:
        if line not in self.problems and len(self.problems) < 100:
            self.problems.append(line)

    def _check_sizes(self) -> None:
        count, size = self.rows("SELECT count(*), total(length(detail) + length(data)) FROM steps")[0]
        arrays = self.rows("SELECT count(*) FROM arrays")[0][0]
        if count > MOST_ROWS or size > MOST_OPEN or arrays > 100 * MOST_ROWS:
            raise UsageError(f"{self.path} is too large to open: {count} steps with {size / 2**20:.0f} MB")

    def _steps(self) -> dict[int, dict[int, StepAt]]:
        names = self._array_names()
        contexts = {number: self._read_context(number, content) for number, content in self.contexts.items()}
        result: dict[int, dict[int, StepAt]] = {}
        shared: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        query = f"SELECT id, branch, step, context, detail, data, {STEP_COLUMNS} FROM steps"
        for number, branch, index, context, detail, data, *columns in self.rows(query):
            try:
                step = self._step(number, index, columns, contexts.get(context), detail, data, tuple(names.get(number, ())), shared)
            except BadDataError as error:
                self._problem(str(error))
                continue
            result.setdefault(branch, {})[index] = StepAt(number, step)
        return result

    def _array_names(self) -> dict[int, list[str]]:
        """{number of a step: names of its arrays}; one whose size is not what its shape says is left out."""
        names: dict[int, list[str]] = {}
        sizes: dict[tuple[Any, Any], int] = {}
        query = "SELECT step, name, dtype, shape, CASE typeof(data) WHEN 'blob' THEN length(data) ELSE -1 END FROM arrays"
        for number, name, dtype, shape, size in self.rows(
            f"{query} WHERE length(name) < 200 AND length(shape) < 200 AND length(dtype) < 9"
        ):
            if (dtype, shape) not in sizes:
                sizes[dtype, shape] = size_of(dtype, shape)
            if isinstance(name, str) and size == sizes[dtype, shape] and size <= MOST_BYTES:
                names.setdefault(number, []).append(name)
            else:
                self._problem(f"'{name}' of the step with the number {number} is not what its shape says, or too large")
        return names

    def _read_context(self, number: int, content: str) -> Any:
        return self._tried(lambda: read_context(content), f"how the steps of context {number} were chosen")

    def _read_prompt(self, number: int, content: str) -> Prompt | None:
        read: Prompt | None = self._tried(lambda: read_prompt(json.loads(content)), f"the prompt of branch {number}")
        return read

    def _step(self, number: int, index: int, columns: Any, context: Any, detail: Any, data: Any, names: Any, shared: Any) -> Step:
        if not isinstance(context, dict) or not isinstance(data, bytes) or not isinstance(detail, str) or not isinstance(index, int):
            raise BadDataError(f"a step with the number {number} cannot be read")
        if names not in shared:
            parts: dict[str, list[str]] = {part: [] for part in OWN_ROWS}
            for pointer in names:
                part, name = measure_name(pointer)
                parts[part].append(name)
            shared[names] = {part: tuple(entries) for part, entries in parts.items()}
        own = shared[names]
        step = step_of(index, tuple(columns), context, detail, data, StoredValues(self, number, own["values"], "values"))
        if step.before is not None:
            object.__setattr__(step.before, "values", StoredValues(self, number, own["before/values"], "before/values"))
        return step

    def array(self, number: int, part: str, name: str) -> NDArray[Any]:
        """An array of a step, frozen; all NaN (ids: -1) where its page is damaged."""
        key = number, part, name
        if key not in self._cache:
            if len(self._cache) > 4096:
                self._cache.clear()
            self._cache[key] = self._array(number, f"{part}/{name.replace('~', '~0').replace('/', '~1')}")
        return self._cache[key]

    def _array(self, number: int, pointer: str) -> NDArray[Any]:
        rows: list[tuple[Any, ...]] = []
        try:
            rows = self.rows("SELECT dtype, shape, data FROM arrays WHERE step = ? AND name = ?", number, pointer)
            return array_of(rows[0][0], json.loads(rows[0][1]), rows[0][2])
        except (BadDataError, UsageError, ValueError, TypeError, IndexError) as error:
            self._problem(f"'{pointer}' of the step with the number {number} cannot be read: {error}")
            return self._nothing(number, pointer)

    def _nothing(self, number: int, pointer: str) -> NDArray[Any]:
        try:
            dtype, shape = self.rows("SELECT dtype, shape FROM arrays WHERE step = ? AND name = ?", number, pointer)[0]
            return frozen(np.full(json.loads(shape), -1 if dtype == "<i8" else np.nan, DTYPES[dtype]))
        except (UsageError, IndexError, ValueError, TypeError, KeyError):
            return frozen(np.empty(0, np.float32))

    def version(self) -> int:
        """Grows where somebody has written to the file."""
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def refresh(self) -> None:
        """Reads again what the file says of the run."""
        self.meta, self.contexts = self._meta(), dict(self._contexts())
        self._cache.clear()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
