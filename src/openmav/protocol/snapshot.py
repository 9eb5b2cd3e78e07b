"""What an app sees: one frozen Snapshot, whose facts about the run are those of a RunState."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from openmav.record import TRUNK, Branch, EndReason, ModelInfo, Prompt, Step
from openmav.record.attribution_result import InputAttribution
from openmav.record.comparison import Comparison
from openmav.record.sampling_preview import SamplingPreview
from openmav.record.sweep_map import SweepMap
from openmav.settings.sampling import Sampling

Status: TypeAlias = Literal["loading", "prefill", "running", "paused", "ended", "failed"]


@dataclass(frozen=True)
class RunState:
    """Every fact about a run but its tokens. The only list of them.

    A session fills in what it knows, its engine the rest; what changes goes through the engine's pipe by name. A Snapshot and a
    View are a RunState with more, so that a new fact is a field here and the place where it is computed.
    """

    status: Status = "loading"
    resumes: bool = False  # tokens are being recomputed amid a run, which then goes on
    progress: str = ""  # what is going on while loading or reading the prompt
    fraction: float | None = None  # of it, 0..1, where known
    info: ModelInfo | None = None
    prompt: Prompt | None = None
    sampling: Sampling = field(default_factory=Sampling)
    reason: EndReason | None = None  # why the text ended
    error: str | None = None  # one line, when failed
    notice: str = ""  # one line about the last command, such as why it could not be done
    notices: int = 0  # such lines so far: the same words again answer another command
    branch: str = TRUNK  # the current one
    parent: str | None = None  # the branch that it left,
    at: int = 0  # at this token
    undone: int = 0  # tokens that can be redone
    attribution: InputAttribution | None = None  # the last one that was requested
    preview: SamplingPreview | None = None  # of the sampling that was asked about last
    sweep: SweepMap | None = None  # the last one, as far as it is computed
    sweeps: tuple[SweepMap, ...] = ()  # those before it
    interventions: tuple[str, ...] = ()  # as settings.interventions.parse reads them
    breakpoints: tuple[str, ...] = ()  # conditions that pause the run
    comparison: Comparison | None = None  # what the tokens are compared with
    pace: float = 0.0  # seconds that each token stays at least
    recomputing: int | None = None  # the step that is computed once more for what the user looks at
    interactive: bool = False  # tokens come one by one, as the user asks for them

    @property
    def running(self) -> bool:
        """Whether more tokens come unless the source is paused."""
        return self.status == "running" or self.resumes

    def facts(self) -> dict[str, Any]:
        """All fields of a RunState by name, also of what is a RunState with more."""
        return {one.name: getattr(self, one.name) for one in fields(RunState)}

    def changes(self, before: RunState) -> dict[str, Any]:
        """The facts that differ from those of an earlier state."""
        old = before.facts()
        return {name: value for name, value in self.facts().items() if value is not old[name] and value != old[name]}


@dataclass(frozen=True)
class Snapshot(RunState):
    """All that is known at one moment. `version` grows with every change, so equal versions need no redraw."""

    version: int = 0
    steps: Sequence[Step] = ()  # of the current branch, without the undone ones
    branches: Mapping[str, Branch] = field(default_factory=dict)  # the others, by name

    def with_state(self, state: RunState) -> Snapshot:
        """The same steps and branches with other facts, and the next version."""
        return replace(self, version=self.version + 1, **state.facts())
