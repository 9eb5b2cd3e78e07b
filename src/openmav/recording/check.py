"""Whether a recording is sound: its structure and the sum of every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openmav.errors import UsageError
from openmav.recording.guard import MOST_BYTES
from openmav.recording.reader import MOST_ROWS, STEP_COLUMNS, Recording
from openmav.recording.rows import checksum
from openmav.recording.run_sweeps import count_sweeps, read_sweeps
from openmav.recording.stored import MOST_ARRAYS, bytes_of
from openmav.recording.sweep import is_sweep, read_sweep


class Check(NamedTuple):
    """A check's name, whether it passed, and a figure or a reason in words."""

    name: str
    good: bool
    says: str


class WrongStep(NamedTuple):
    """A step whose rows are not what was written."""

    branch: int
    step: int


def checks(recording: Recording) -> list[Check]:
    """All checks that need no model."""
    answer = _quick_check(recording)
    result = [Check("structure", answer == "ok", answer)]
    try:
        count = int(recording.rows("SELECT count(*) FROM steps")[0][0])
        if count > MOST_ROWS:
            return [*result, Check("sums", False, f"{count} steps are more than mav reads")]
        wrong = list(wrong_steps(recording))
        at = f"; the first is step {wrong[0].step} of branch {wrong[0].branch}" if wrong else ""
        result.append(Check("sums", not wrong, f"{count - len(wrong)} of {count} steps are as they were written{at}"))
        branches = recording.branches()
        recording.check_arrays()
        for branch in branches:
            for step in branch.steps[branch.at :]:
                for holder in (step, step.before) if step.before is not None else (step,):
                    len(holder.pieces)
                    for name in holder.values:
                        holder.values.get(name)
    except UsageError as error:
        return [*result, Check("text", False, str(error))]
    if is_sweep(recording):
        try:
            sweep = read_sweep(recording)
        except UsageError as error:
            return [*result, Check("sweep", False, str(error))]
        assert sweep is not None
        total = len(sweep.effects) + sweep.wrong
        result.append(Check("sweep", not sweep.wrong, f"{len(sweep.effects)} of {total} effects are as they were written"))
    named, sound = count_sweeps(recording), len(read_sweeps(recording, recording.info))
    if named:
        result.append(Check("sweeps", sound == named, f"{sound} of {named} sweeps of the run are as they were written"))
    problems = recording.problems
    says = problems[0] if problems else f"{len(branches)} branches, {sum(len(branch.steps) - branch.at for branch in branches)} tokens"
    return [*result, Check("text", not problems and recording.info is not None, says)]


def wrong_steps(recording: Recording) -> Iterator[WrongStep]:
    """The steps whose sum is not that of their rows."""
    rows = f"SELECT context, detail, data, sum, {STEP_COLUMNS} FROM steps WHERE id = ? AND {bytes_of('detail', 'data')} < ?"
    arrays_of = "SELECT name, dtype, shape, data FROM arrays WHERE step = ? AND length(data) <= ? ORDER BY name"
    sizes_of = "SELECT count(*), total(length(data)) FROM arrays WHERE step = ?"
    for number, branch, index in recording.rows(f"SELECT id, branch, step FROM steps NOT INDEXED LIMIT {MOST_ROWS}"):
        try:
            count, size = recording.rows(sizes_of, number)[0]
            if count > MOST_ARRAYS or size > 2 * MOST_BYTES:
                raise ValueError("more than a step has")
            context, detail, data, total, *columns = recording.rows(rows, number, MOST_BYTES)[0]
            arrays = recording.rows(arrays_of, number, MOST_BYTES)
            good = checksum(index, tuple(columns), recording.contexts.get(context, ""), detail, data, arrays) == total
        except (UsageError, IndexError, TypeError, ValueError, AttributeError):
            good = False
        if not good:
            yield WrongStep(branch, index)


def _quick_check(recording: Recording) -> str:
    try:
        return "; ".join(str(row[0]) for row in recording.rows("PRAGMA quick_check(3)"))
    except UsageError as error:
        return str(error)
