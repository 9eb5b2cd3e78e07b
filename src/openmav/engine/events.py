"""What the engine sends through its pipe to its own client, in the order in which it happened.

Nobody else reads events: an app sees snapshots and sends commands, both of openmav.protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from openmav.protocol.snapshot import RunState
from openmav.record import Branch, Step
from openmav.settings import Settings
from openmav.settings.sampling import Sampling


@dataclass(frozen=True)
class StateChanged:
    """What changed in the run's state, by the names of RunState.

    `length`: the tokens of the current branch; None: as many as before. `obeyed`: the number of the last of the app's commands
    that had been taken by then.
    """

    changes: Mapping[str, Any]
    length: int | None
    obeyed: int


@dataclass(frozen=True)
class Made:
    """Steps one after the other, the first of them at its index; whatever was there or after it is gone."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Recomputed:
    """A step in its own place, with other values; nothing else changes."""

    step: Step


@dataclass(frozen=True)
class BranchLeft:
    """A branch is left: its first `shared` steps are those of the text, `branch` holds those after them."""

    branch: Branch
    shared: int


@dataclass(frozen=True)
class BranchRenamed:
    old: str
    new: str


@dataclass(frozen=True)
class Failed:
    line: str
    exit_code: int
    details: str = ""  # a traceback, for the log


Event: TypeAlias = StateChanged | Made | Recomputed | BranchLeft | BranchRenamed | Failed


def first_state(settings: Settings) -> RunState:
    """What both sides know before the engine has sent anything."""
    return RunState(
        progress="starting", sampling=settings.sampling.over(Sampling()), interactive=settings.interactive, pace=settings.refresh_rate
    )
