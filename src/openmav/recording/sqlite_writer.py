"""Writes a recording: one SQLite file, a transaction for the tokens of a burst, so that a kill at any moment leaves a whole file."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openmav.errors import MavError, UsageError
from openmav.record import Prompt, Step, freeze_values
from openmav.recording.facts import prompt_content
from openmav.recording.format import APPLICATION, ATTENTION, ATTENTION_BUDGET, KEPT, LARGEST, SCHEMA, SWEEP, VERSION
from openmav.recording.rows import COLUMNS, dumps, rows_of
from openmav.recording.texts import sum_of_text

NETWORK = ("nfs", "cifs", "smb", "9p", "fuse", "lustre", "gpfs", "beegfs", "afs", "ceph", "glusterfs", "ncpfs", "webdav", "vboxsf")


class RecordingError(MavError):
    """The recording stopped; the run goes on."""

    exit_code = 1


class Writer:
    """One file. Every method raises RecordingError where it can't be written any more; the file then holds what was committed."""

    def __init__(self, path: str | Path, budget: int = ATTENTION_BUDGET) -> None:
        """Raises UsageError where the file exists, or can't be made."""
        self.path = Path(path)
        self._budget = budget
        self._contexts: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._lengths: dict[int, int] = {}  # of each branch: the first index that it has never had
        self._started = time.time()
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        except FileExistsError as error:
            raise UsageError(f"{self.path} exists already, and may be in use; give another name") from error
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}") from error
        self._database = sqlite3.connect(str(self.path), isolation_level=None, check_same_thread=False, cached_statements=64)
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            self.remove()
            raise UsageError(f"cannot write {self.path}: {error}") from error

    def _open(self) -> None:
        run = self._database.execute
        run("PRAGMA page_size=4096")
        run(f"PRAGMA application_id={APPLICATION}")
        run(f"PRAGMA user_version={VERSION}")
        wal = not is_network(self.path) and run("PRAGMA journal_mode=WAL").fetchone()[0] == "wal"
        self.journal = "wal" if wal else "rollback"
        if wal:
            run("PRAGMA synchronous=NORMAL")
        else:
            run("PRAGMA journal_mode=DELETE")
            run("PRAGMA synchronous=FULL")
        self._inode = os.stat(self.path).st_ino
        run("BEGIN IMMEDIATE")
        for statement in SCHEMA.values():
            run(statement)
        self.set_meta({"journal": self.journal, "started": self._started, "attention_budget": self._budget, "attention_kept": KEPT})
        run("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is in the file as a whole, or not at all."""
        try:
            if os.stat(self.path).st_ino != self._inode:
                raise RecordingError(f"the recording stopped: {self.path} is another file now")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                self._contexts, self._texts = {}, {}  # what the file has of them is not known any more
                raise
        except FileNotFoundError as error:
            raise RecordingError(f"the recording stopped: {self.path} is gone") from error
        except (sqlite3.Error, OSError) as error:
            raise RecordingError(f"the recording stopped: {self.path}: {error}") from error

    # ---- what is written, inside a transaction ----

    def set_meta(self, values: Mapping[str, Any]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, dumps(value)) for name, value in values.items()])

    def put_branch(self, name: str, parent: int | None, at: int, prompt: Prompt) -> int:
        """A new branch; its number."""
        row = (name, parent, at, dumps(prompt_content(prompt)))
        return int(self._database.execute("INSERT INTO branches (name, parent, at, prompt) VALUES (?, ?, ?, ?)", row).lastrowid or 0)

    def rename_branch(self, branch: int, name: str) -> None:
        self._database.execute("UPDATE branches SET name = ? WHERE id = ?", (name, branch))

    def put_step(self, branch: int, step: Step) -> None:
        """A new step of a branch, or one in the place of another."""
        old = None
        if step.index < self._lengths.get(branch, 0):
            query = "SELECT id, token_id FROM steps WHERE branch = ? AND step = ?"
            old = self._database.execute(query, (branch, step.index)).fetchone()
        self._lengths[branch] = max(self._lengths.get(branch, 0), step.index + 1)
        if old is not None:
            step = self._with_kept(old[0], step) if old[1] == step.token_id else step
            self._database.execute("DELETE FROM arrays WHERE step = ?", (old[0],))
            self._database.execute("DELETE FROM steps WHERE id = ?", (old[0],))
        rows = rows_of(self._bounded(step), self._texts)
        context = self._contexts.get(rows.context)
        if context is None:
            context = int(self._database.execute("INSERT INTO contexts (content) VALUES (?)", (rows.context,)).lastrowid or 0)
            self._contexts[rows.context] = context
        number = self._database.execute(INSERT, (branch, step.index, *rows.columns, context, rows.detail, rows.data, rows.sum)).lastrowid
        self._database.executemany("INSERT INTO arrays VALUES (?, ?, ?, ?, ?)", [(number, *array) for array in rows.arrays])
        if rows.texts:
            texts = [(token_id, text, sum_of_text(token_id, text)) for token_id, text in rows.texts.items()]
            self._database.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", texts)
            self._texts.update(rows.texts)

    def cut(self, branch: int, length: int) -> None:
        """The steps of a branch from this one on are gone."""
        self._database.execute("DELETE FROM arrays WHERE step IN (SELECT id FROM steps WHERE branch = ? AND step >= ?)", (branch, length))
        self._database.execute("DELETE FROM steps WHERE branch = ? AND step >= ?", (branch, length))

    def put_event(self, branch: str, tokens: int, changes: Mapping[str, Any], seconds: float | None = None) -> None:
        """`seconds` since the start of the run; None: now."""
        row = (time.time() - self._started if seconds is None else seconds, branch, tokens, dumps(changes))
        self._database.execute("INSERT INTO events (seconds, branch, tokens, changes) VALUES (?, ?, ?, ?)", row)

    def begin_sweep(self, about: Mapping[str, Any]) -> None:
        """`about`: what a sweep is of, as meta "sweep" has it."""
        for statement in SWEEP.values():
            self._database.execute(statement)
        self.set_meta({"sweep": about})

    def put_effect(self, row: Sequence[Any]) -> None:
        """What ablating a site did: the columns of `effects` after the id."""
        self._database.execute(f"INSERT INTO effects VALUES (NULL, {', '.join('?' * len(row))})", tuple(row))

    def close(self) -> None:
        """One file is left, without its journal."""
        try:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error:  # a reader has it open, or the disk is full: the journal beside the file stays, and is read with it
            pass
        finally:
            self._database.close()

    def tidy(self) -> None:
        """After `close`: one file of what a full disk, or a reader, has made it leave in two, where there is room for it by now.

        Only where the file is still at its path: another one's journal may be there else.
        """
        with suppress(sqlite3.Error, OSError):
            if os.stat(self.path).st_ino == self._inode and Path(f"{self.path}-wal").exists():
                self._database = sqlite3.connect(str(self.path), isolation_level=None)
                self.close()

    def remove(self) -> None:
        """Nothing is left of a file that no run is in: neither its journal, which would keep a full disk full."""
        self._database.close()
        for end in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)

    def _with_kept(self, number: int, step: Step) -> Step:
        """The step with what the file has of the entries that memory has let go."""
        from openmav.recording.rows import array_of

        kept = {}
        for name in step.dropped:
            row = self._database.execute(
                "SELECT dtype, shape, data FROM arrays WHERE step = ? AND name = ?", (number, f"values/{name}")
            ).fetchone()
            if row is not None and name not in step.values:
                kept[name] = array_of(row[0], json.loads(row[1]), row[2])
        if not kept:
            return step
        dropped = tuple(name for name in step.dropped if name not in kept)
        self._budget += kept[ATTENTION].nbytes if ATTENTION in kept else 0  # it was counted before
        return replace(step, values={**step.values, **kept}, dropped=dropped)

    def _bounded(self, step: Step) -> Step:
        """The step with whole attention rows as long as the budget lasts, then with their largest entries."""
        rows = step.values.get(ATTENTION)
        if rows is None:
            return step
        self._budget -= rows.nbytes
        if self._budget >= 0 or rows.ndim < 1 or rows.shape[-1] <= KEPT:
            return step
        weights = np.where(np.isnan(rows), -np.inf, rows)
        places = np.argsort(-weights, axis=-1, kind="stable")[..., :KEPT]
        largest = np.take_along_axis(rows, places, -1)
        places = np.where(np.isnan(largest), -1, places)
        values = {name: array for name, array in step.values.items() if name != ATTENTION}
        more = freeze_values({LARGEST: largest, f"{LARGEST}.ids": places})
        return replace(step, values={**values, **more}, dropped=tuple(dict.fromkeys((*step.dropped, ATTENTION))))


@contextmanager
def made_at_once(path: str | Path) -> Iterator[Writer]:
    """Writes a file of what is there already: whole at the end of the block, and gone where the block fails.

    Raises UsageError where the file can't be written.
    """
    writer = Writer(path, budget=2**62)
    try:
        yield writer
        writer.close()
    except RecordingError as error:
        writer.remove()
        raise UsageError(f"cannot write {path}: {error.__cause__ or error}") from error
    except BaseException:
        writer.remove()
        raise


INSERT = (
    "INSERT INTO steps (branch, step, position, token_id, token, text, special, forced, logprob, rank, entropy, seconds_model, "
    f"seconds_capture, seconds_sample, context, detail, data, sum) VALUES ({', '.join('?' * (len(COLUMNS) + 6))})"
)


def is_network(path: Path) -> bool:
    """Whether the file is, as far as the system says, on a file system of the network, where a write-ahead log is not safe."""
    where = os.path.realpath(path)
    if os.name == "nt":
        return where.startswith("\\\\")
    if sys.platform == "darwin":
        return where.startswith(("/Volumes/", "/Network/"))
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    kinds: dict[str, str] = {}
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode("latin-1", "replace").decode("unicode_escape", "replace")
        if where == point or where.startswith(point.rstrip("/") + "/"):
            kinds[point] = rest.split()[0]
    return bool(kinds) and kinds[max(kinds, key=len)].startswith(NETWORK)
