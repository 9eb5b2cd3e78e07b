"""What is sound in a damaged recording, as a whole one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from openmav.errors import UsageError
from openmav.recording.check import WrongStep, wrong_steps
from openmav.recording.reader import Recording
from openmav.recording.run_sweeps import MOST, NAME, read_sweeps
from openmav.recording.sqlite_writer import Writer, made_at_once
from openmav.recording.sweep import is_sweep, read_sweep, row_of


class Recovered(NamedTuple):
    """Tokens that were saved, and what was left out, a line each; of a sweep its effects."""

    tokens: int
    problems: list[str]
    effects: int = 0


class Damaged(Recording):
    """Reads past what can't be read: the rows before a damaged page, and those of a table with ids after it as well."""

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return super().rows(query, *values)
        except UsageError:
            before = self._sound(query, values)
            if not query.startswith("SELECT id,"):
                return before
            head, _, order = query.partition(" ORDER BY id")
            after = self._sound(f"{head} ORDER BY id DESC{order}", values)
            known = {row[0] for row in before}
            return [*before, *reversed([row for row in after if row[0] not in known])]

    def _sound(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with contextlib.suppress(sqlite3.Error, OverflowError):
            for row in self._database.execute(query, values):
                rows.append(row)
        return rows

    def _check_sizes(self) -> None:
        """The rows are bounded one by one."""


def recover(source: str | Path, target: str | Path) -> Recovered:
    """Writes a new recording with every token up to the first unsound one of its branch.

    Raises UsageError where nothing can be read, or the target exists.
    """
    with Damaged(source) as recording:
        wrong = set(wrong_steps(recording))
        ids = {name: number for number, name in recording.rows("SELECT id, name FROM branches LIMIT 10000")}
        branches = recording.branches()
        recording.check_arrays()
        if not branches:
            raise UsageError(f"nothing in {source} could be saved: no branch of the text can be read")
        if recording.info is None and not any(branch.steps for branch in branches):
            raise UsageError(f"nothing in {source} could be saved: neither the model nor a token can be read")
        problems, tokens = list(recording.problems), 0
        with made_at_once(target) as writer:
            numbers: dict[str, int] = {}
            lengths: dict[str, int] = {}
            with writer.transaction():
                sound = {NAME.format(one.number) for one in read_sweeps(recording, recording.info, under_way=True)}
                left_out = {"journal", *(set(map(NAME.format, range(1, MOST + 1))) - sound)}
                writer.set_meta({name: value for name, value in recording.meta.items() if name not in left_out})
                for branch in branches:
                    shared = min(branch.at, lengths.get(branch.parent or "", branch.at))
                    numbers[branch.name] = writer.put_branch(branch.name, numbers.get(branch.parent or ""), branch.at, branch.prompt)
                    length = shared
                    for step in branch.steps[shared:]:
                        if shared < branch.at or WrongStep(ids.get(branch.name, -1), step.index) in wrong:
                            problems.append(f"branch '{branch.name}' ends before token {step.index}, which is not as it was written")
                            break
                        writer.put_step(numbers[branch.name], step)
                        length += 1
                        tokens += 1
                    lengths[branch.name] = length
            effects = 0
            if is_sweep(recording):
                effects = _copy_sweep(recording, writer, problems)
        problems += recording.problems  # those found on the way, too
    return Recovered(tokens, list(dict.fromkeys(problems)), effects)


def _copy_sweep(recording: Recording, writer: Writer, problems: list[str]) -> int:
    """The sound effects of a sweep into the new file; how many they are."""
    try:
        sweep = read_sweep(recording)
    except UsageError as error:
        problems.append(f"the sweep: {error}")
        return 0
    assert sweep is not None
    problems += recording.problems
    with writer.transaction():
        writer.begin_sweep(recording.meta["sweep"])
        for effect in sweep.effects:
            writer.put_effect(row_of(effect))
    return len(sweep.effects)
