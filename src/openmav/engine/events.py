"""What the engine tells its client, in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from openmav.explained import InputAttribution
from openmav.record import TRUNK, Branch, EndReason, ModelInfo, Prompt, Step
from openmav.sampling import Sampling


@dataclass(frozen=True)
class Working:
    """Loading, or reading the prompt."""

    what: str
    share: float | None
    reading: bool


@dataclass(frozen=True)
class Ready:
    """The model is loaded, or another prompt has been taken."""

    info: ModelInfo
    prompt: Prompt


@dataclass(frozen=True)
class Made:
    """Steps one after the other, the first of them at its index; whatever stood there or after it is gone."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Again:
    """An earlier step that was looked at again; nothing else changes."""

    step: Step


@dataclass(frozen=True)
class Kept:
    """A branch is left: its first `shared` steps are those in force, `branch` holds those after them."""

    branch: Branch
    shared: int


@dataclass(frozen=True)
class Renamed:
    old: str
    new: str


@dataclass(frozen=True)
class State:
    """Running, paused or ended, with this many tokens of a branch; `notice` answers a command that could not be done.

    `obeyed`: how many of the app's commands had been taken by then.
    """

    running: bool
    length: int
    reason: EndReason | None
    sampling: Sampling
    obeyed: int
    notice: str = ""
    branch: str = TRUNK
    parent: str | None = None
    at: int = 0
    ahead: int = 0
    interventions: tuple[str, ...] = ()
    breakpoints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explained:
    """Which tokens a prediction depends on."""

    attribution: InputAttribution


@dataclass(frozen=True)
class Failed:
    line: str
    exit_code: int
    details: str = ""  # a traceback, for the log


Event: TypeAlias = Working | Ready | Made | Again | Kept | Renamed | State | Explained | Failed
