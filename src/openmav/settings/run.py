"""The settings of a run: one frozen, picklable dataclass, from the command line or from Python, for the session."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from openmav.errors import UsageError
from openmav.settings.constraint import Constraint
from openmav.settings.sampling import Sampling, SamplingOptions
from openmav.settings.workers import check_workers

Aggregation: TypeAlias = Literal["l2", "max_abs"]
DEMO, AUTO = "demo", "auto"
DEMO_PROMPT = "It is a truth universally acknowledged, that"
OTHER_PROMPT = "Once upon a time"
LOAD_TIMEOUT = 3600.0  # seconds: 140 GB, a model of 70 billion parameters in bfloat16, from a disk or a hub at 40 MB/s
CORE_MEASURES = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy", "distribution")


LONGEST_WAIT = 1e6  # seconds, 11 days: no system's wait supports more; a longer limit counts as none


@dataclass(frozen=True)
class Settings:
    """All that a session needs. `measures` are names in the registry; candidates, entropy and surprisal are always computed.

    Raises UsageError for an invalid value.
    """

    model: str = DEMO
    prompt: str | None = None  # None: the default of the model
    backend: str = AUTO  # a name of the registry, or the one for this model
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    chat: bool | str = False  # apply the model's chat template to the prompt; a name selects one of several templates
    stop: tuple[str, ...] = ()  # empty: those of the model's generation config
    max_new_tokens: int | None = None  # None: from the model's generation config, else 200
    sampling: Sampling | SamplingOptions = field(default_factory=SamplingOptions)  # options that are not set are the model's
    ignore_generation_config: bool = False  # of the model, except for its end tokens
    constraint: Constraint = field(default_factory=Constraint)
    measures: tuple[str, ...] = CORE_MEASURES
    measure_files: tuple[str, ...] = ()  # Python files with measures of the user's own, by absolute path
    interventions: tuple[str, ...] = ()  # specs as interventions.parse reads them
    breakpoints: tuple[str, ...] = ()  # conditions that stop the generation, as conditions.parse_breakpoint reads them
    aggregation: Aggregation = "l2"
    candidates: int = 20
    interactive: bool = False  # start paused: each key press generates a token
    refresh_rate: float = 0.0  # minimum seconds per token
    load_timeout: float = LOAD_TIMEOUT  # seconds for loading in a command or in the app; 0: no limit
    threads: int | None = None  # of the model; None: the library's default
    gpu_layers: int | None = None  # layers that llama.cpp keeps on an accelerator; None: all that it has room for
    rpc: tuple[str, ...] = ()  # host:port of the workers to which llama.cpp gives them
    compared: Settings | None = None  # another run, which reads the tokens of this one: each is compared (see docs/compare.md)
    parting: float | None = None  # the share of the residual stream from which on the two part; None: what rounding does not explain

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise UsageError(what)

        need(bool(self.model.strip()), "the model has no name; give a name of the hub, a folder, or 'demo'")
        need(self.prompt != "", "the prompt is empty; give the model at least one character to continue")
        length = self.max_new_tokens
        need(length is None or length >= 1, f"max-new-tokens must be 1 or more, not {length}")
        need(self.candidates >= 1, f"candidates must be 1 or more, not {self.candidates}")
        need(self.aggregation in get_args(Aggregation), f"unknown aggregation '{self.aggregation}'. Known: l2, max_abs")
        need(
            math.isfinite(self.refresh_rate) and self.refresh_rate >= 0, f"refresh-rate must be 0 or more seconds, not {self.refresh_rate}"
        )
        need(self.load_timeout >= 0, f"load-timeout must be 0 or more seconds, not {self.load_timeout}")
        need(self.threads is None or self.threads >= 1, f"threads must be 1 or more, not {self.threads}")
        need(self.gpu_layers is None or self.gpu_layers >= 0, f"gpu-layers must be 0 or more, not {self.gpu_layers}")
        check_workers(self.rpc)
        need(all(self.stop), "a stop sequence must not be empty")

    @property
    def text(self) -> str:
        """The prompt, or the default of the model."""
        if self.prompt is not None:
            return self.prompt
        return DEMO_PROMPT if self.model == DEMO else OTHER_PROMPT
