"""The flags of each command that runs a model, in the order in which the help shows them, and the options that they make.

How a flag is declared, and the flags that all these commands share, are in flag.py and shared.py; cli/parser.py puts them on the commands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import click

from openmav.cli.options.flag import Spec, flag
from openmav.cli.options.shared import LOADING as LOADING_FLAGS
from openmav.cli.options.shared import MODEL, TEXT, THE_MODEL, THE_PROMPT, LoadingOptions, ModelOptions, RunsModelOptions
from openmav.record.attribution_result import METHODS
from openmav.settings import Aggregation
from openmav.settings.interventions import KINDS
from openmav.settings.sites import Swept
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions, Scale

SAMPLING, INTERVENTIONS, BREAKPOINTS, OUTPUT, APP = "Sampling", "Interventions", "Breakpoints", "Output", "The app"
OWN = "the model's own, else {}"  # its generation_config.json
REPEATED = "may be repeated"


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


RUN = (
    *THE_MODEL,
    *THE_PROMPT,
    flag(TEXT, "--max-new-tokens", "Stop after this many tokens.", type=click.IntRange(min=1), metavar="N", otherwise=OWN.format(200)),
    flag(TEXT, "--stop", f"Stop when this text appears; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(TEXT, "--regex", "The generated text must match this regular expression as a whole.", metavar="PATTERN"),
    flag(TEXT, "--json-schema", "The generated text must be JSON that matches this schema; - is stdin.", metavar="FILE"),
    flag(TEXT, "--ban", f"Never generate this string; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(TEXT, "--require", f"Don't stop before this string is generated; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(SAMPLING, "--temp", "Temperature; 0 takes the most likely token (greedy).", type=float, metavar="T", otherwise=OWN.format(0)),
    flag(SAMPLING, "--top-k", "Sample from the K most likely tokens; 0 is off.", type=int, metavar="K", otherwise=OWN.format(50)),
    flag(
        SAMPLING,
        "--top-p",
        "Sample from the fewest tokens whose probability reaches P; 1 is off.",
        type=float,
        metavar="P",
        otherwise=OWN.format(1),
    ),
    flag(
        SAMPLING,
        "--min-p",
        "Drop tokens below this share of the most likely one's probability; 0 is off.",
        type=float,
        metavar="P",
        otherwise=OWN.format(0),
    ),
    flag(SAMPLING, "--repetition-penalty", "Above 1 discourages repetition; 1 is off.", type=float, metavar="R", otherwise=OWN.format(1)),
    flag(SAMPLING, "--ignore-generation-config", "Ignore the model's generation config, but for its end tokens.", is_flag=True),
    flag(SAMPLING, "--seed", "The same seed gives the same text.", default=42, type=int, metavar="N"),
    flag(
        INTERVENTIONS,
        "--ablate",
        "Zero a site of the model: L5.H3, L5.attn, L7.mlp, L7, L3.N120; =mean; @5.",
        multiple=True,
        metavar="SITE",
    ),
    flag(INTERVENTIONS, "--amplify", "Multiply a site: L5.attn=0.5.", multiple=True, metavar="SITE=X"),
    flag(
        INTERVENTIONS,
        "--steer",
        'Add a vector after a layer: L8=vector.npy*4, or L8=\'"love"-"hate"*4\'.',
        multiple=True,
        metavar="L=VECTOR",
    ),
    flag(
        INTERVENTIONS,
        "--patch",
        "Take a site's value from a run of another text: L6.resid@5=other text.",
        multiple=True,
        metavar="SITE=TEXT",
    ),
    flag(
        BREAKPOINTS,
        "--break",
        f"Stop where this condition is met: 'entropy > 4', 'token ~ \"Paris\"'; {REPEATED}. docs/conditions.md names all.",
        into="breakpoints",
        multiple=True,
        metavar="COND",
    ),
    flag(
        BREAKPOINTS,
        "--watch",
        f"Show this value at every token, in the panel watches: 'norm(mlp, 3)'; {REPEATED}.",
        into="watches",
        multiple=True,
        metavar="EXPR",
    ),
    flag(OUTPUT, "--tui", "The app; the default in a terminal.", is_flag=True),
    flag(OUTPUT, "--plain", "The text alone; the default in a pipe.", is_flag=True),
    flag(OUTPUT, "--json", "One JSON object a line: a header, each token, an end.", is_flag=True),
    flag(OUTPUT, "--aggregation", "Norm to report: l2 or max_abs.", default="l2", type=click.Choice(("l2", "max_abs")), metavar="KIND"),
    flag(
        OUTPUT,
        "--measure",
        f"Also compute this measure: a name (mav measures lists them) or a Python file of your own; {REPEATED}.",
        into="measures",
        multiple=True,
        metavar="NAME",
    ),
    flag(
        OUTPUT,
        "--refresh-rate",
        "Minimum seconds per token.",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        otherwise="0.1 in the app, else 0",
    ),
    flag(OUTPUT, "--record", "Also write the run into this new file, to be replayed, checked and exported.", metavar="FILE"),
    flag(APP, "--interactive", "Start paused; each key generates one token.", is_flag=True),
    flag(APP, "--layout", f"Layout of panels: {', '.join(LAYOUTS)}, or your own.", metavar="NAME", otherwise="overview"),
    flag(APP, "--selected-panels", "Show these panels instead of a layout. mav panels lists them.", metavar="A B ..."),
    flag(APP, "--panel", f"A panel of your own, in this Python file; {REPEATED}.", into="panel_files", multiple=True, metavar="FILE"),
    flag(APP, "--num-grid-rows", "Rows of panels.", type=click.IntRange(min=1), metavar="N", otherwise="what fits the screen"),
    flag(
        APP,
        "--scale",
        "Bar scale: linear, log or minmax. Numbers are never scaled.",
        default="linear",
        type=click.Choice(("linear", "log", "minmax")),
        metavar="KIND",
    ),
    flag(APP, "--max-bar-length", "Longest bar.", type=click.IntRange(min=1), metavar="CELLS", otherwise="what fits the panel"),
    flag(
        APP,
        "--limit-chars",
        "Show the newest N characters of the text; 0: as many as fit.",
        default=AppOptions.limit_chars,
        type=click.IntRange(min=0),
        metavar="N",
    ),
    flag(APP, "--theme", "Colours of the app.", metavar="NAME"),
)


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


TARGET = flag(TEXT, "--target", "Target token; the model's most likely (top-1) one if left out.", metavar="TEXT")
SWEEP = (
    flag(OUTPUT, "--ablate", "heads, attn, mlp or layers.", default="heads", type=click.Choice(get_args(Swept)), metavar="KIND"),
    flag(OUTPUT, "--mean", "Replace by the mean over the prompt, not by 0.", is_flag=True),
    *THE_PROMPT,
    TARGET,
    flag(TEXT, "--minus", "Report logit(target) - logit(this token).", metavar="TEXT"),
    *THE_MODEL,
    flag(OUTPUT, "--json", "JSON lines: a header, each site, an end.", is_flag=True),
    flag(OUTPUT, "--csv", "A table, each site a line.", is_flag=True),
    flag(OUTPUT, "--record", "Also write the sweep into this new file, to be shown again, checked and exported.", metavar="FILE"),
)


@dataclass(frozen=True)
class AttributeOptions(RunsModelOptions):
    """Of `mav attribute`."""

    target: str | None
    minus: str | None
    method: str
    json: bool


ATTRIBUTE = (
    *THE_PROMPT,
    TARGET,
    flag(TEXT, "--minus", "Attribute logit(target) - logit(this token).", metavar="TEXT"),
    flag(OUTPUT, "--method", f"{', '.join(METHODS)}.", default=METHODS[0], type=click.Choice(METHODS), metavar="NAME"),
    *THE_MODEL,
    flag(OUTPUT, "--json", "One JSON object.", is_flag=True),
)


@dataclass(frozen=True)
class CompareOptions(InterventionFlags):
    """Of `mav compare`. `model`, `backend`, `device`, `dtype` and `prompt` have none, one or two values: of both, or of A and of B."""

    model: tuple[str, ...]
    backend: tuple[str, ...]
    device: tuple[str, ...]
    dtype: tuple[str, ...]
    threads: int | None
    gpu_layers: int | None
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


def _twice(specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """The flags of a model and a prompt, of which some may be given for A and for B."""
    return tuple(replace(one, attributes=_of_both(one.attributes)) if one.name in BOTH else one for one in specs)


def _of_both(attributes: dict[str, Any]) -> dict[str, Any]:
    default = attributes.get("default")
    changed = {"multiple": True, "default": None, "otherwise": attributes.get("otherwise", default)}
    return {**attributes, **changed, "help": f"{attributes['help']} Twice: of A, then of B."}


BOTH = ("--model", "--backend", "--device", "--dtype", "--prompt")
COMPARE = (
    *_twice((*THE_MODEL, *THE_PROMPT)),
    *(spec for spec in RUN if spec.name in ("--max-new-tokens", "--temp", "--seed")),
    *(
        replace(spec, attributes={**spec.attributes, "help": f"{spec.attributes['help']} In B only."})
        for spec in RUN
        if spec.name.removeprefix("--") in KINDS
    ),
    flag(
        OUTPUT,
        "--threshold",
        "Share of the residual stream by which a layer must differ for the runs to part there.",
        type=click.FloatRange(min=0),
        metavar="X",
        otherwise="8 roundings of the coarser dtype",
    ),
    flag(OUTPUT, "--max-kl", "Exit with 1 if a token's KL divergence is above X nats.", type=click.FloatRange(min=0), metavar="X"),
    flag(OUTPUT, "--plain", "A row for each token instead of the app; the default in a pipe and with --max-kl.", is_flag=True),
    flag(OUTPUT, "--json", "JSON lines: a header, each token, an end.", is_flag=True),
    flag(OUTPUT, "--record", "Also write the comparison into this file, which mav replay opens; B's run as run.b.mav.", metavar="FILE"),
)


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


BATCHED = ("--max-new-tokens", "--stop", "--measure")  # and all of sampling
BATCH = (
    *THE_MODEL,
    *(spec for spec in THE_PROMPT if spec.name.startswith("--chat")),
    *(spec for spec in RUN if spec.name in BATCHED or spec.attributes["section"] == SAMPLING),
    flag(OUTPUT, "--record", "The folder of the recordings; one that holds this batch is gone on with.", required=True, metavar="FOLDER"),
    flag(
        OUTPUT, "--batch-size", "Prompts at once, where that gives the same numbers.", default=16, type=click.IntRange(1, 256), metavar="N"
    ),
)


@dataclass(frozen=True)
class DoctorOptions(LoadingOptions):
    """Of `mav doctor`."""

    model: str | None


DOCTOR = (flag(MODEL, "--model", "Inspect this model and validate its numbers.", metavar="NAME"), *LOADING_FLAGS)


@dataclass(frozen=True)
class TourOptions:
    """Of `mav tour`."""

    theme: str | None


TOUR = tuple(spec for spec in RUN if spec.name == "--theme")


@dataclass(frozen=True)
class ReplayOptions:
    """Of `mav replay`."""

    file: str
    follow: bool
    rerun: bool
    layout: str | None
    theme: str | None


REPLAY = (
    flag(OUTPUT, "--follow", "Go along with a file that is being written.", is_flag=True),
    flag(OUTPUT, "--rerun", "Load the model and make the text again, then go on from any token.", is_flag=True),
    *(spec for spec in RUN if spec.name in ("--layout", "--theme")),
)
