"""What the lines of a run hold in JSON: a header, a step for each token, an end. docs/json.md is the user's description of them.

NaN and infinity are null, and a step's "nonfinite" names where the model itself computed one. Values are fp32, widened to double,
so that reading them back gives the same fp32. Output is ASCII: other characters are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from openmav.record.codec import STEP, encode_step, plain
from openmav.record.nonfinite import nonfinite
from openmav.record.step import EndReason, ModelInfo, Prompt, Step
from openmav.settings import Settings
from openmav.settings.sampling import Sampling, SamplingOptions
from openmav.version import __version__

SCHEMA = 1
COLUMNS = ("token_id", "token", "logit", "prob", "sampled_prob")  # of a candidate, in the order of record.Candidates
PER_LAYER = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy")


def header(info: ModelInfo, prompt: Prompt, settings: Settings) -> dict[str, Any]:
    """What was run: the model, the tokens really fed, how tokens are chosen."""
    return {
        "type": "header",
        "schema": SCHEMA,
        "version": __version__,
        "model": model_of(info),
        "prompt": prompt_of(prompt),
        "sampling": _sampling(settings.sampling),
        "aggregation": settings.aggregation,
        "interventions": list(settings.interventions),
        "breakpoints": list(settings.breakpoints),
        "constraint": asdict(settings.constraint),
    }


def _sampling(sampling: Sampling | SamplingOptions) -> dict[str, Any]:
    chosen = sampling if isinstance(sampling, Sampling) else sampling.over(Sampling())
    return {**asdict(chosen), "stages": dict(chosen.stages)}


def prompt_of(prompt: Prompt) -> dict[str, Any]:
    """The text, and the tokens that are fed for it."""
    return {"text": prompt.text, "token_ids": list(prompt.token_ids), "tokens": list(prompt.tokens)}


def model_of(info: ModelInfo) -> dict[str, Any]:
    """What is known of a model."""
    model = {key: value for key, value in asdict(info).items() if key not in ("missing", "notes")}
    missing = {name: {str(layer): why for layer, why in layers.items()} for name, layers in info.missing.items()}
    return {**model, "missing": missing, "notes": list(info.notes)}


LINE = tuple(entry for entry in STEP if entry.in_lines)


def step_line(step: Step, info: ModelInfo) -> dict[str, Any]:
    """One token and what the model did at the position that predicted it."""
    line = {"type": "step", **_shaped(plain(encode_step(step, LINE)), info)}
    line["rank"] = step.rank if step.rank >= 0 else None
    line["timing"]["total"] = step.timing.total
    if step.before is None:
        del line["before"], line["interventions"]
    else:
        line["before"] = _shaped(line["before"], info)
    return {**line, "nonfinite": list(nonfinite(step, info))}


def end_line(reason: EndReason, tokens: int, seconds: float, at_breakpoint: tuple[str, str] | None = None) -> dict[str, Any]:
    """`at_breakpoint`: the breakpoint that was hit at the last token, and what was measured there."""
    hit = dict(zip(("breakpoint", "measured"), at_breakpoint)) if at_breakpoint is not None else {}
    return {"type": "end", "reason": reason, "tokens": tokens, "seconds": seconds, **hit}


def _shaped(fields: Mapping[str, Any], info: ModelInfo) -> dict[str, Any]:
    """The plain fields of a step or of its baseline, with candidates as rows and with values by layer where there is one a layer."""
    shaped: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "candidates":
            shaped[name] = [dict(zip(COLUMNS, row)) for row in zip(*value.values())]
        elif name == "values":
            shaped["layers"] = _layers(value, info)
            shaped["measures"] = {measure: numbers for measure, numbers in value.items() if measure not in PER_LAYER}
        else:
            shaped[name] = value
    return shaped


def _layers(values: Mapping[str, Any], info: ModelInfo) -> list[dict[str, Any]]:
    columns = {name: values.get(name, [None] * info.layers) for name in PER_LAYER}
    return [
        {"index": layer, **{name: None if layer in info.missing.get(name, ()) else column[layer] for name, column in columns.items()}}
        for layer in range(info.layers)
    ]


def write_line(content: dict[str, Any]) -> str:
    """The line itself: JSON without spaces, in ASCII, with its newline."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"
