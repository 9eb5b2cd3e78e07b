"""JSON lines as of `mav --json`, with what these leave out: recording/from_jsonl.py makes the same recording of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record import Step, sweep_lines
from openmav.record.codec import encode_step, plain
from openmav.record.lines import end_line, header, step_line, write_line
from openmav.recording.facts import prompt_content, read_settings
from openmav.recording.rows import kind_of
from openmav.settings import Settings

if TYPE_CHECKING:
    from openmav.recording.export.run import Run
    from openmav.recording.reader import Recording
    from openmav.recording.sweep import RecordedSweep

MOST_NUMBERS = 4_000_000  # of the arrays of a step
EVENTS = "SELECT seconds, branch, tokens, changes FROM events WHERE length(changes) < 1000000 ORDER BY id LIMIT 100000"


def write(run: Run, out: BinaryIO) -> None:
    for line in lines(run):
        out.write(write_line(line).encode())


def write_sweep(sweep: RecordedSweep, _recording: Recording, out: BinaryIO) -> None:
    """As `mav sweep --json`; without an end where the sweep has none."""
    out.write(write_line(sweep_lines.header_line(sweep.plan)).encode())
    for effect in sweep.effects:
        out.write(write_line(sweep_lines.effect_line(effect)).encode())
    if sweep.end is not None:
        out.write(write_line(sweep_lines.end_line(sweep.end, len(sweep.effects), sweep.seconds or 0.0)).encode())


def lines(run: Run) -> Iterator[dict[str, Any]]:
    """A header with the whole run's facts under `recording`, every step once, and an end where the run has one."""
    last, meta = run.now, run.recording.meta
    assert last.prompt is not None
    head = header(run.info, last.prompt, _settings(run))
    events = run.recording.rows(EVENTS)
    branches = [{"name": b.name, "parent": b.parent, "at": b.at, "prompt": plain(prompt_content(b.prompt))} for b in run.branches]
    more = {"meta": plain(meta), "branches": branches, "events": [list(event) for event in events]}
    yield {**head, "version": str(meta.get("version", head["version"])), "recording": more}
    seconds = 0.0
    for branch, step in run.own_steps():
        seconds += step.timing.total
        _need_few_numbers(step)
        line = step_line(step, run.info)
        if len(run.branches) > 1:
            line["branch"] = branch.name
        yield {**line, **_left_out(step, head["sampling"])}
    if last.reason is not None:
        yield end_line(last.reason, len(last.steps), seconds)


def _settings(run: Run) -> Settings:
    """What the run was asked for; the sampling is the one that was used, with the model's own settings."""
    try:
        settings = read_settings(run.recording.meta.get("settings"))
    except UsageError:
        settings = Settings()
    return replace(settings, sampling=run.now.steps[0].sampling if run.now.steps else run.now.sampling)


def _need_few_numbers(step: Step) -> None:
    """Raises UsageError for a step whose line would take hundreds of megabytes to make."""
    holders = (step,) if step.before is None else (step, step.before)
    count = sum(array.size for holder in holders for array in holder.values.values())
    if count > MOST_NUMBERS:
        raise UsageError(f"token {step.index} has {count / 1e6:.0f} million numbers, too many for a line; mav export --to parquet has them")


def _left_out(step: Step, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What a line does not say of a step: what is not as usual, the shapes of its arrays, and which null is an infinity."""
    more: dict[str, Any] = {}
    if step.forced:
        more["forced"] = True
    if step.dropped:
        more["dropped"] = list(step.dropped)
    if step.interventions:
        more["interventions"] = list(step.interventions)
    own = {**asdict(step.sampling), "stages": dict(step.sampling.stages)}
    if own != sampling:
        more["sampling"] = own
    more["arrays"] = _kinds(step.values)
    if step.before is not None:
        more["arrays_before"] = _kinds(step.before.values)
    infinite = dict(_infinite(encode_step(step), ""))
    if infinite:
        more["infinite"] = infinite
    return more


def _kinds(values: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """{name: [dtype, shape]}."""
    return {name: [kind_of(array), list(array.shape)] for name, array in values.items()}


def _infinite(value: Any, path: str) -> Iterator[tuple[str, list[list[int]]]]:
    """(path to an array or number, [[index in the flat array, sign] of each infinity in it])."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _infinite(one, f"{path}/{name}" if path else str(name))
    elif isinstance(value, float) and math.isinf(value):
        yield path, [[0, 1 if value > 0 else -1]]
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        where = np.flatnonzero(np.isinf(value))
        if len(where):
            yield path, [[int(at), int(np.sign(value.flat[at]))] for at in where]
