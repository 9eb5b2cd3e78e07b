"""What a run is asked to do: one frozen dataclass that goes from the command line, or from Python, to the session and through a pipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from openmav.constraint import Constraint
from openmav.errors import UsageError
from openmav.sampling import Sampling

Aggregation: TypeAlias = Literal["l2", "max_abs"]
DEMO = "demo"
DEMO_PROMPT = "It is a truth universally acknowledged, that"
OTHER_PROMPT = "Once upon a time"
CORE_MEASURES = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy", "distribution")


@dataclass(frozen=True)
class Settings:
    """All that a session needs. `measures` are names of the registry; candidates, entropy and surprisal are always there.

    Raises UsageError for a value that makes no sense.
    """

    model: str = DEMO
    prompt: str | None = None  # None: the default of the model
    backend: str = "transformers"
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    chat: bool = False
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 200
    sampling: Sampling = field(default_factory=Sampling)
    constraint: Constraint = field(default_factory=Constraint)
    measures: tuple[str, ...] = CORE_MEASURES
    measure_files: tuple[str, ...] = ()  # Python files with measures of the reader's own, by absolute path
    interventions: tuple[str, ...] = ()  # what is done to the model, as interventions.parse reads it
    breakpoints: tuple[str, ...] = ()  # conditions that stop the generation, as conditions.parse_breakpoint reads them
    aggregation: Aggregation = "l2"
    candidates: int = 20
    interactive: bool = False  # start paused: each key makes a token
    refresh_rate: float = 0.0  # seconds that each token stays at least
    threads: int | None = None  # of torch; None: torch's own choice

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise UsageError(what)

        need(bool(self.model.strip()), "the model has no name; give a name of the hub, a folder, or 'demo'")
        need(self.prompt != "", "the prompt is empty; give the model at least one character to go on from")
        need(self.max_new_tokens >= 1, f"max-new-tokens must be 1 or more, not {self.max_new_tokens}")
        need(self.candidates >= 1, f"candidates must be 1 or more, not {self.candidates}")
        need(self.aggregation in get_args(Aggregation), f"unknown aggregation '{self.aggregation}'. Known: l2, max_abs")
        need(
            math.isfinite(self.refresh_rate) and self.refresh_rate >= 0, f"refresh-rate must be 0 or more seconds, not {self.refresh_rate}"
        )
        need(all(self.stop), "a stop text must not be empty")

    @property
    def text(self) -> str:
        """The prompt that is really used."""
        if self.prompt is not None:
            return self.prompt
        return DEMO_PROMPT if self.model == DEMO else OTHER_PROMPT
