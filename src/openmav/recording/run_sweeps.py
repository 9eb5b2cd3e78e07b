"""The sweeps of a run in its recording: an entry of `meta` for each, "sweep.1" the first, written as far as it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from openmav.protocol.snapshot import RunState
from openmav.record import ModelInfo, frozen
from openmav.record.codec import number, plain
from openmav.record.sweep_map import SweepMap
from openmav.recording.guard import WRONG
from openmav.recording.reader import Recording
from openmav.recording.rows import sum_of
from openmav.settings.interventions import How
from openmav.settings.sites import Swept

NAME = "sweep.{}"
MOST = 500  # sweeps of a file
MOST_SITES = 4_000_000  # of all of them


def sweeps_of(state: RunState) -> tuple[SweepMap, ...]:
    """All of a run, in the order in which they were begun."""
    return state.sweeps if state.sweep is None else (*state.sweeps, state.sweep)


def new_sweeps(state: RunState, written: dict[int, SweepMap]) -> dict[str, Any]:
    """The entries of `meta` for what `written` does not have yet, {its number: the sweep}; it has them then."""
    entries = {}
    for sweep in sweeps_of(state):
        old = written.get(sweep.number)
        if sweep.number <= MOST and (old is None or (old.done, old.stopped) != (sweep.done, sweep.stopped)):
            written[sweep.number] = sweep
            entries[NAME.format(sweep.number)] = content_of(sweep)
    return entries


def renamed_sweeps(written: dict[int, SweepMap], old: str, name: str) -> dict[str, Any]:
    """The entries of `meta` of all that are of a branch which has another name now; `written` has them so, too."""
    mine = {number: replace(sweep, branch=name) for number, sweep in written.items() if sweep.branch == old}
    written.update(mine)
    return {NAME.format(number): content_of(sweep) for number, sweep in mine.items()}


def content_of(sweep: SweepMap) -> dict[str, Any]:
    """Plain values: its facts, and [layer, head, change in logits] of each site that is known; null for a change that is not finite."""
    effects = [[int(layer), int(column), float(sweep.changes[layer, column])] for layer, column in np.argwhere(sweep.known)]
    shape = list(sweep.changes.shape)
    facts = {"branch": sweep.branch, "index": sweep.index, "token_id": sweep.token_id, "token": sweep.token, "logit": sweep.logit}
    more = {"ablate": sweep.what, "how": sweep.how, "total": sweep.total, "of_baseline": sweep.of_baseline, "stopped": sweep.stopped}
    content: dict[str, Any] = plain({**facts, **more, "shape": shape, "effects": effects})
    return {**content, "sum": sum_of(content)}


def read_sweeps(recording: Recording, info: ModelInfo | None, *, under_way: bool = False) -> tuple[SweepMap, ...]:
    """The sweeps of a run; one that is not as it was written is left out, and a problem of the recording.

    `under_way`: more may be written, so that one with sites left is not stopped.
    """
    sweeps, room = [], MOST_SITES
    for at in range(1, MOST + 1):
        content = recording.meta.get(NAME.format(at))
        if content is None:
            continue
        try:
            sweep = _read(at, content, info, room)
            room -= sweep.changes.size
        except WRONG:
            line = f"sweep {at} is not as it was written, and is left out"
            if line not in recording.problems:
                recording.problems.append(line)
            continue
        sweeps.append(sweep if under_way or not sweep.under_way else replace(sweep, stopped=True))
    return tuple(sweeps)


def count_sweeps(recording: Recording) -> int:
    """How many sweeps of its run a recording names, sound ones or not."""
    return sum(NAME.format(at) in recording.meta for at in range(1, MOST + 1))


def _read(at: int, content: Mapping[str, Any], info: ModelInfo | None, room: int) -> SweepMap:
    content = dict(content)
    if content.pop("sum") != sum_of(content) or info is None:
        raise ValueError("a sum")
    what, how = content["ablate"], content["how"]
    shape = (info.layers, info.heads if what == "heads" else 1)
    if what not in get_args(Swept) or how not in get_args(How) or tuple(content["shape"]) != shape or shape[0] * shape[1] > room:
        raise ValueError("a shape")
    changes, known = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    for layer, column, change in content["effects"]:
        if not (0 <= layer < shape[0] and 0 <= column < shape[1]):
            raise IndexError("a site")
        changes[layer, column], known[layer, column] = number(change), True
    texts, counts = (content["token"], content["branch"]), (content["index"], content["token_id"], content["total"])
    if not all(type(text) is str for text in texts) or not all(type(count) is int for count in counts):
        raise TypeError("a token")
    return SweepMap(
        *counts[:2],
        content["token"],
        number(content["logit"]),
        frozen(changes),
        known,
        total=content["total"],
        of_baseline=bool(content["of_baseline"]),
        stopped=bool(content["stopped"]),
        what=what,
        how=how,
        branch=content["branch"],
        number=at,
    )
