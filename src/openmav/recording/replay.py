"""A recording as a Source: the app shows it as it shows a run, without a model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from openmav.errors import UsageError
from openmav.protocol.commands import Command, Retrace, Switch
from openmav.protocol.snapshot import RunState, Snapshot, Status
from openmav.record import TRUNK, Branch
from openmav.record.attribution_result import InputAttribution
from openmav.record.codec import number, read_sampling
from openmav.record.comparison import Comparison
from openmav.recording.reader import Recording
from openmav.recording.run_sweeps import read_sweeps
from openmav.settings.sampling import Sampling

LOOK = 0.2  # seconds between two looks at a file that is being written


class ReplaySource:
    """Satisfies openmav.protocol.source.Source. `follow`: it goes along with a file that is being written."""

    can = frozenset({"Switch"})

    def __init__(self, path: str | Path, follow: bool = False) -> None:
        """Raises UsageError for what is no recording."""
        self.recording = Recording(path)
        self._follow = follow
        self._branch: str | None = None  # that the user has gone to
        self._looked = time.monotonic()
        self._seen = self.recording.version()
        self._now = snapshot_of(self.recording, follow)
        self._notice = self._now.notice

    def snapshot(self) -> Snapshot:
        if self._follow and time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            self._look()
        notice = notice_of(self.recording)
        if notice != self._notice:  # what can't be read is known where it is looked at
            self._notice = notice
            self._now = replace(self._now, notice=notice, version=self._now.version + 1)
        return self._now

    def send(self, command: Command) -> None:
        if isinstance(command, Switch):
            self._branch = command.branch
            self._now = at_branch(self._now, command.branch)

    def close(self) -> None:
        self.recording.close()

    def _look(self) -> None:
        try:
            seen = self.recording.version()
            if seen != self._seen:
                self._seen = seen
                self.recording.refresh()
                now = snapshot_of(self.recording, self._follow)
                now = at_branch(now, self._branch) if self._branch is not None else now
                self._now = replace(now, version=self._now.version + 1)
        except UsageError as error:
            self._now = replace(self._now, notice=str(error), version=self._now.version + 1)


def snapshot_of(recording: Recording, followed: bool = False) -> Snapshot:
    """The run as it was when it was last written, with what could not be read as the notice. `followed`: more may be written."""
    branches = {branch.name: branch for branch in recording.branches()}
    info = recording.info
    if info is None or not branches:
        raise UsageError(f"{recording.path} holds no run yet: nothing was generated before it ended")
    name = recording.state("branch", TRUNK)
    current = branches.get(name) if isinstance(name, str) else None
    current = current or next(iter(branches.values()))
    undone = recording.state("undone", 0)
    shown = len(current.steps) if not isinstance(undone, int) else max(0, len(current.steps) - max(0, undone))
    sweeps = read_sweeps(recording, info, under_way=followed)
    state = replace(_state(recording), sweep=sweeps[-1] if sweeps else None, sweeps=sweeps[:-1])
    now = Snapshot(
        **state.facts(),
        steps=current.steps[:shown],
        branches={k: v for k, v in branches.items() if k != current.name},
    )
    status: Status = "ended" if now.reason else "paused"
    here: dict[str, Any] = {"branch": current.name, "parent": current.parent, "at": current.at, "prompt": current.prompt}
    return replace(now, **here, status=status, info=info, notice=notice_of(recording))


def notice_of(recording: Recording) -> str:
    """What could not be read, in a line; "" for nothing."""
    return "; ".join(recording.problems[:2])


def retrace_of(recording: Recording) -> Retrace:
    """The command that makes an engine write the recorded text again. Raises UsageError for a recording that holds no run."""
    branches = (replace(b, steps=tuple(replace(s, values={}, pieces={}, before=None) for s in b.steps)) for b in recording.branches())
    return Retrace(tuple(branches), snapshot_of(recording).branch)


def at_branch(now: Snapshot, name: str) -> Snapshot:
    """The same run on another of its branches; unchanged for an unknown one."""
    branch = now.branches.get(name)
    if branch is None or now.prompt is None:
        return now
    left = Branch(now.branch, now.prompt, tuple(now.steps), now.parent, now.at)
    others = {**{k: v for k, v in now.branches.items() if k != name}, left.name: left}
    here: dict[str, Any] = {"branch": name, "parent": branch.parent, "at": branch.at, "prompt": branch.prompt, "steps": branch.steps}
    return replace(now, **here, branches=others, undone=0, version=now.version + 1)


def _state(recording: Recording) -> RunState:
    try:
        sampling = recording.state("sampling")
        chosen = read_sampling(sampling) if sampling else Sampling()
        reason = recording.state("reason")
        interventions, breakpoints = (tuple(map(str, recording.state(name, ()))) for name in ("interventions", "breakpoints"))
        known = reason if reason in ("eos", "length", "stop", "break", "complete", "stuck", "interrupt") else None
        attribution, comparison = _attribution(recording.meta.get("attribution")), recording.state("comparison")
        return RunState(
            sampling=chosen,
            reason=known,
            attribution=attribution,
            interventions=interventions,
            breakpoints=breakpoints,
            comparison=None if comparison is None else Comparison.read(comparison),
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        recording.problems.append("it does not say how it ended")
        return RunState()


def _attribution(content: Any) -> InputAttribution | None:
    if not isinstance(content, dict):
        return None
    import numpy as np

    scores = np.array(content["scores"], dtype=np.float32)
    scores.setflags(write=False)
    floats = {name: number(content[name]) for name in ("output", "total", "drift", "drift_limit", "seconds")}
    lists = {name: tuple(content[name]) for name in ("token_ids", "tokens")}
    if len(scores) != len(lists["tokens"]) or not all(isinstance(text, str) for text in lists["tokens"]):
        raise ValueError("an attribution")
    return InputAttribution(**{**content, "scores": scores, **floats, **lists})
