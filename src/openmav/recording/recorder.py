"""From a run to a Writer: what is new in a Snapshot is written, and nothing twice."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from operator import is_
from pathlib import Path
from typing import Any

from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record import Branch, ModelInfo, Prompt, Step
from openmav.record.sweep_map import SweepMap
from openmav.recording.facts import model_content
from openmav.recording.run_sweeps import new_sweeps, renamed_sweeps
from openmav.recording.sqlite_writer import RecordingError, Writer
from openmav.settings import Settings
from openmav.version import __version__

LIBRARIES = ("numpy", "torch", "transformers", "tokenizers", "textual")
FACTS = (
    "status",
    "reason",
    "error",
    "branch",
    "parent",
    "at",
    "undone",
    "interventions",
    "breakpoints",
    "sampling",
    "comparison",
)  # in meta "state"
LOGGED = ("reason", "error", "branch", "undone", "interventions", "breakpoints", "sampling")  # changes that are an event


class Recorder:
    """Writes a run into a file. A file that can't be written any more ends the recording, never the run; `failure` then says why."""

    def __init__(self, path: str | Path, settings: Settings | None = None, failed: Callable[[str], None] | None = None) -> None:
        """`failed` gets the line that says why the recording stopped. Raises UsageError where the file can't be made."""
        self.writer = Writer(path)
        self.failure = ""
        self._failed = failed
        self._settings = settings
        self._ids: dict[str, int] = {}
        self._steps: dict[str, list[Step]] = {}  # what the file has of each branch, by its name
        self._prompts: dict[str, Prompt] = {}
        self._info: ModelInfo | None = None
        self._state = RunState()
        self._sweeps: dict[int, SweepMap] = {}
        self._length = 0

    @property
    def recording(self) -> bool:
        return not self.failure

    def update(self, now: Snapshot) -> None:
        """Writes what has changed, in one transaction. Nothing before the model is known, or amid a change of branches."""
        if now.info is None or now.prompt is None or now.branch in now.branches:
            return
        self.write(lambda: self._write(now))

    def add(self, branch: str, steps: Sequence[Step]) -> None:
        """New steps at the end of a branch that the file has; the rest as before."""
        if steps:
            self.write(lambda: self._append(branch, steps))

    def close(self) -> None:
        if self.failure:
            self.writer.tidy()
        else:
            self.writer.close()

    def write(self, write: Callable[[], None]) -> None:
        """One transaction, in which `write` calls the writer; nothing once the recording has ended."""
        if self.failure:
            return
        try:
            with self.writer.transaction():
                write()
        except RecordingError as error:
            self.failure = str(error)
            self.writer.close()
            if self._failed is not None:
                self._failed(self.failure)

    def _append(self, branch: str, steps: Sequence[Step]) -> None:
        known = self._steps[branch]
        for step in steps:
            self.writer.put_step(self._ids[branch], step)
        known.extend(steps)
        self._length = len(known)

    def _write(self, now: Snapshot) -> None:
        self._facts(now)
        self._renamed(now)
        assert now.prompt is not None
        current = Branch(now.branch, now.prompt, tuple(now.steps), now.parent, now.at)
        for branch in _parents_first({**now.branches, now.branch: current}):
            self._branch(branch, len(branch.steps) + (now.undone if branch is current else 0))

    def _branch(self, branch: Branch, length: int) -> None:
        """`length`: its steps with those that were undone; whatever the file has after them is gone."""
        parent = self._ids.get(branch.parent) if branch.parent is not None else None
        at = branch.at if parent is not None else 0
        if branch.name not in self._ids:
            self._ids[branch.name] = self.writer.put_branch(branch.name, parent, at, branch.prompt)
            self._steps[branch.name] = list(self._steps[branch.parent][:at]) if parent is not None and branch.parent is not None else []
        known, steps, number = self._steps[branch.name], branch.steps, self._ids[branch.name]
        same = len(known) if all(map(is_, known, steps)) else 0  # as a rule all that the file has
        if same == len(steps):
            return
        for index, step in enumerate(steps[same:], same):
            old = known[index] if index < len(known) else None
            if step is not old and not (old is not None and _only_less(step, old)):
                if old is not None and old.token_id != step.token_id:
                    self.writer.cut(number, index)
                    known = known[:index]
                self.writer.put_step(number, step)
        if length < len(known):
            self.writer.cut(number, length)
        self._steps[branch.name] = [*steps, *known[len(steps) : length]]

    def _header(self, info: ModelInfo) -> dict[str, Any]:
        """What is written once: with the backend that ran the model, where it was chosen by the model's name."""
        if self._info is not None:
            return {}
        return header(None if self._settings is None else replace(self._settings, backend=info.backend))

    def _facts(self, now: Snapshot) -> None:
        if now.info is not self._info:
            self.writer.set_meta({} if now.info is None else {"model": model_content(now.info), **self._header(now.info)})
            self._info = now.info
        changes = {name: value for name, value in now.changes(self._state).items() if name in LOGGED}
        length = len(now.steps)
        if changes or length < self._length:
            self.writer.put_event(now.branch, length, {name: _content(value) for name, value in changes.items()})
        if now.attribution is not None and now.attribution is not self._state.attribution:
            self.writer.set_meta({"attribution": asdict(now.attribution)})
        if now.sweep is not self._state.sweep:
            self.writer.set_meta(new_sweeps(now, self._sweeps))
        state = {name: _content(getattr(now, name)) for name in FACTS}
        if changes or length != self._length or now.status != self._state.status:
            self.writer.set_meta({"state": {**state, "tokens": length}})
        self._state, self._length = RunState(**now.facts()), length

    def _renamed(self, now: Snapshot) -> None:
        names = {*now.branches, now.branch}
        gone, new = [name for name in self._ids if name not in names], [name for name in names if name not in self._ids]
        if len(gone) == 1 and len(new) == 1:
            old, name = gone[0], new[0]
            self.writer.rename_branch(self._ids[old], name)
            self._ids[name], self._steps[name] = self._ids.pop(old), self._steps.pop(old)
            self.writer.set_meta(renamed_sweeps(self._sweeps, old, name))


def _only_less(step: Step, old: Step) -> bool:
    """Whether memory has let go of entries of a step that the file has."""
    same = step.token_id == old.token_id and step.interventions == old.interventions and step.candidates is old.candidates
    return same and len(step.dropped) > len(old.dropped) and step.values.keys() <= old.values.keys()


def _parents_first(branches: Mapping[str, Branch]) -> list[Branch]:
    order: dict[str, Branch] = {}

    def add(branch: Branch, depth: int = 0) -> None:
        parent = branches.get(branch.parent) if branch.parent is not None else None
        if parent is not None and parent.name not in order and depth < len(branches):
            add(parent, depth + 1)
        order.setdefault(branch.name, branch)

    for branch in branches.values():
        add(branch)
    return list(order.values())


def _content(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def header(settings: Settings | None) -> dict[str, Any]:
    """What the run was asked for, and the versions of what computed it."""
    return {"version": __version__, "versions": versions(), "settings": None if settings is None else asdict(settings)}


def versions() -> dict[str, str]:
    stored = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in LIBRARIES:
        try:
            stored[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return stored
