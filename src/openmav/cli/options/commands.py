"""The flags of the other commands that run a model, many of which are those of `mav run`; cli/parser.py puts them on the commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import click

from openmav.cli.options.flag import Spec, flag
from openmav.cli.options.run import OUTPUT, RUN, SAMPLING
from openmav.cli.options.shared import LOADING, MODEL, TEXT, THE_MODEL, THE_PROMPT
from openmav.record.attribution_result import METHODS
from openmav.settings.interventions import KINDS
from openmav.settings.sites import Swept

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
ATTRIBUTE = (
    *THE_PROMPT,
    TARGET,
    flag(TEXT, "--minus", "Attribute logit(target) - logit(this token).", metavar="TEXT"),
    flag(OUTPUT, "--method", f"{', '.join(METHODS)}.", default=METHODS[0], type=click.Choice(METHODS), metavar="NAME"),
    *THE_MODEL,
    flag(OUTPUT, "--json", "One JSON object.", is_flag=True),
)


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
DOCTOR = (flag(MODEL, "--model", "Inspect this model and validate its numbers.", metavar="NAME"), *LOADING)
TOUR = (
    flag(OUTPUT, "--step", "Begin at this step.", default=1, type=click.IntRange(min=1), metavar="N"),
    *(spec for spec in RUN if spec.name == "--theme"),
)
REPLAY = (
    flag(OUTPUT, "--follow", "Go along with a file that is being written.", is_flag=True),
    flag(OUTPUT, "--rerun", "Load the model and make the text again, then go on from any token.", is_flag=True),
    *(spec for spec in RUN if spec.name in ("--layout", "--theme")),
)
