"""What the flags of each command that runs a model become: a frozen dataclass whose fields are the flags' names.

A dataclass of forty fields takes a millisecond to make, so they stand apart from the flags, which the help shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from openmav.settings import Aggregation
from openmav.settings.sites import Swept
from openmav.view.options import Scale


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is loaded."""

    backend: str
    device: str
    dtype: str
    threads: int | None
    gpu_layers: int | None
    rpc: str | None
    trust_remote_code: bool
    load_timeout: float


@dataclass(frozen=True)
class ModelOptions(LoadingOptions):
    """Which model, and how it is loaded."""

    model: str


@dataclass(frozen=True)
class PromptOptions:
    """The text to continue."""

    prompt: str | None
    prompt_file: str | None
    chat: bool
    chat_template: str | None


@dataclass(frozen=True)
class RunsModelOptions(PromptOptions, ModelOptions):
    """Of a command that runs a model on a prompt."""


@dataclass(frozen=True)
class SamplingFlags:
    """How tokens are chosen."""

    temp: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    ignore_generation_config: bool
    seed: int


@dataclass(frozen=True)
class InterventionFlags:
    """What is changed in the model, a field for each of interventions.KINDS."""

    ablate: tuple[str, ...]
    amplify: tuple[str, ...]
    steer: tuple[str, ...]
    patch: tuple[str, ...]


@dataclass(frozen=True)
class RunOptions(InterventionFlags, SamplingFlags, RunsModelOptions):
    """Of `mav run`."""

    max_new_tokens: int | None
    stop: tuple[str, ...]
    regex: str | None
    json_schema: str | None
    ban: tuple[str, ...]
    require: tuple[str, ...]
    breakpoints: tuple[str, ...]
    watches: tuple[str, ...]
    tui: bool
    plain: bool
    json: bool
    aggregation: Aggregation
    measures: tuple[str, ...]
    refresh_rate: float | None
    record: str | None
    interactive: bool
    layout: str | None
    selected_panels: str | None
    panel_files: tuple[str, ...]
    num_grid_rows: int | None
    scale: Scale
    max_bar_length: int | None
    limit_chars: int
    theme: str | None


@dataclass(frozen=True)
class SweepOptions(RunsModelOptions):
    """Of `mav sweep`."""

    ablate: Swept
    mean: bool
    target: str | None
    minus: str | None
    json: bool
    csv: bool
    record: str | None


@dataclass(frozen=True)
class AttributeOptions(RunsModelOptions):
    """Of `mav attribute`."""

    target: str | None
    minus: str | None
    method: str
    json: bool


@dataclass(frozen=True)
class CompareOptions(InterventionFlags):
    """Of `mav compare`. `model`, `backend`, `device`, `dtype` and `prompt` have none, one or two values: of both, or of A and of B."""

    model: tuple[str, ...]
    backend: tuple[str, ...]
    device: tuple[str, ...]
    dtype: tuple[str, ...]
    threads: int | None
    gpu_layers: int | None
    rpc: str | None
    trust_remote_code: bool
    load_timeout: float
    prompt: tuple[str, ...]
    prompt_file: str | None
    chat: bool
    chat_template: str | None
    max_new_tokens: int | None
    temp: float | None
    seed: int
    threshold: float | None
    max_kl: float | None
    plain: bool
    json: bool
    record: str | None


@dataclass(frozen=True)
class BatchOptions(SamplingFlags, ModelOptions):
    """Of `mav batch`."""

    prompts: str
    chat: bool
    chat_template: str | None
    max_new_tokens: int | None
    stop: tuple[str, ...]
    measures: tuple[str, ...]
    record: str
    batch_size: int


@dataclass(frozen=True)
class DoctorOptions(LoadingOptions):
    """Of `mav doctor`."""

    model: str | None


@dataclass(frozen=True)
class TourOptions:
    """Of `mav tour`."""

    step: int
    theme: str | None


@dataclass(frozen=True)
class ReplayOptions:
    """Of `mav replay`."""

    file: str
    follow: bool
    rerun: bool
    layout: str | None
    theme: str | None
