"""Reads a recording, whoever made it: nothing in the file can run, and no more is read than a size that was checked first."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from openmav.errors import UsageError
from openmav.record import Branch, ModelInfo, Prompt, Step
from openmav.recording.facts import read_model, read_prompt
from openmav.recording.format import SCHEMA, TABLES
from openmav.recording.guard import MOST_BYTES, MOST_PARSED, WRONG, check_head, connect, memory_of, parsed
from openmav.recording.rows import PIECES, BadDataError, read_context, step_of
from openmav.recording.stored import StoredPieces, StoredSteps, StoredValues, bytes_of

MOST_OPEN = 192 * 2**20  # of all that is read when a file is opened
MOST_ROWS = 150_000  # of steps; each takes some 5 kB of memory
MOST_BRANCHES = 10_000
MOST_META = 1000  # entries
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


class Recording:
    """An open file. `problems` are lines about what in it could not be read.

    Raises UsageError, in one line, for what is no recording, or one that can't be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self._prompts: dict[str, Prompt | None] = {}
        check_head(self.path)
        self._database = connect(self.path)
        try:
            self._check_schema()
            self._check_array_sizes()
            self._stored = StoredSteps(self.rows, self._problem, "texts" in self.tables)
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
        if set(SCHEMA) - {"texts"} - {name for _, name, _ in rows}:  # without it, all texts are in `detail`
            raise UsageError(f"{self.path} is not a whole recording: it lacks a table")
        self.tables = frozenset(name for _, name, _ in rows if name in TABLES)

    def _check_array_sizes(self) -> None:
        """None is larger than any that mav writes: SQLite reads each that it passes on the way to another whole."""
        if sum(file.stat().st_size for file in (self.path, Path(f"{self.path}-wal")) if file.is_file()) <= MOST_BYTES:
            return
        too_large = f"length(data) > {MOST_BYTES} OR {bytes_of('name', 'dtype', 'shape')} > {MOST_BYTES}"
        sizes = self.rows(f"SELECT max(length(data)) FROM arrays WHERE {too_large}")
        if sizes and sizes[0][0] is not None:
            raise UsageError(f"{self.path} is too large to open: one of its arrays has {sizes[0][0] / 2**20:.0f} MB")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Raises UsageError where the file is damaged there."""
        try:
            return self._database.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            raise UsageError(f"{self.path} is damaged: {error}; mav recover may save what is sound in it") from error

    # ---- what it says of the run ----

    def _meta(self) -> dict[str, Any]:
        """Row by row, so that one which is damaged or too large takes no other with it; by its name, SQLite would read it whole."""
        result, room = {}, MOST_PARSED
        for row in range(min(MOST_META, int(self.rows("SELECT count(*) FROM meta")[0][0]))):
            name = str(row + 1)
            try:
                name, value = self.rows("SELECT name, value FROM meta LIMIT 1 OFFSET ?", row)[0]
                result[str(name)] = parsed(value, room)
                room -= memory_of(value)
            except (UsageError, *WRONG):
                self._problem(f"its entry {str(name)[:80]} of `meta` cannot be read")
        return result

    def _contexts(self) -> Iterator[tuple[int, str]]:
        self._need_room("contexts", "content")
        yield from self.rows("SELECT id, content FROM contexts LIMIT 100000")

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
        names: set[str] = set()
        self._need_room("branches", "name", "parent", "at", "prompt")
        rows = self.rows("SELECT id, name, parent, at, prompt FROM branches ORDER BY id LIMIT ?", MOST_BRANCHES)
        for number, name, parent, at, prompt in rows:
            read = self._read_prompt(number, prompt)
            if read is None or not isinstance(name, str) or not isinstance(at, int) or at < 0 or name in names:
                self._problem(f"branch {number} cannot be read")
                continue
            names.add(name)
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

    def _need_room(self, table: str, *columns: str) -> None:
        """Raises UsageError where so much would be read that no recording has."""
        size = self.rows(f"SELECT total({bytes_of(*columns)}) FROM {table}")
        if size and size[0][0] > MOST_BYTES:
            raise UsageError(f"{self.path} is too large to open: '{table}' has {size[0][0] / 2**20:.0f} MB")

    def _check_sizes(self) -> None:
        columns = ("detail", "data", *STEP_COLUMNS.split(", "))
        count, size = self.rows(f"SELECT count(*), total({bytes_of(*columns)}) FROM steps")[0]
        if count > MOST_ROWS or size > MOST_OPEN:
            raise UsageError(f"{self.path} is too large to open: {count} steps with {size / 2**20:.0f} MB")

    def _steps(self) -> dict[int, dict[int, StepAt]]:
        contexts = {number: self._read_context(number, content) for number, content in self.contexts.items()}
        result: dict[int, dict[int, StepAt]] = {}
        query = f"SELECT id, branch, step, context, detail, data, {STEP_COLUMNS} FROM steps LIMIT {MOST_ROWS}"
        for number, branch, index, context, detail, data, *columns in self.rows(query):
            try:
                step = self._step(number, index, columns, contexts.get(context), detail, data)
            except BadDataError as error:
                self._problem(str(error))
                continue
            result.setdefault(branch, {})[index] = StepAt(number, step)
        return result

    def _read_context(self, number: int, content: str) -> Any:
        return self._tried(lambda: read_context(content), f"how the steps of context {number} were chosen")

    def _read_prompt(self, number: int, content: str) -> Prompt | None:
        """Most branches have the same; all together have a bound."""
        if content not in self._prompts:
            room = MOST_PARSED - sum(map(memory_of, self._prompts))
            self._prompts[content] = self._tried(lambda: read_prompt(parsed(content, room)), f"the prompt of branch {number}")
        return self._prompts[content]

    def _step(self, number: int, index: int, columns: Any, context: Any, detail: Any, data: Any) -> Step:
        if not isinstance(context, dict) or not isinstance(data, bytes) or not isinstance(detail, str) or not isinstance(index, int):
            raise BadDataError(f"a step with the number {number} cannot be read")
        step = step_of(index, tuple(columns), context, detail, data, StoredValues(self._stored, number, "values"))
        if step.before is not None:
            object.__setattr__(step.before, "values", StoredValues(self._stored, number, "before/values"))
        if "texts" in self.tables:
            for pointer, holder in zip(PIECES, (step, step.before)):
                if holder is not None:
                    object.__setattr__(holder, "pieces", StoredPieces(self._stored, number, pointer, holder.values, holder.pieces))
        return step

    def check_arrays(self) -> None:
        """Looks at the arrays and texts of every step, so that `problems` has those that can't be read."""
        self._stored.texts()
        for (number,) in self.rows("SELECT id FROM steps"):
            self._stored.names(number)

    def bytes_of_large_steps(self, least: int) -> int:
        """Bytes of the arrays of all steps with more than `least` of them; no array is read for it."""
        sizes = "SELECT sum(length(data)) AS size FROM arrays GROUP BY step"
        return int(self.rows(f"SELECT total(size) FROM ({sizes}) WHERE size > ?", least)[0][0])

    def version(self) -> int:
        """Grows where somebody has written to the file."""
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def refresh(self) -> None:
        """Reads again what the file says of the run."""
        self.meta, self.contexts = self._meta(), dict(self._contexts())
        self._stored.forget()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
