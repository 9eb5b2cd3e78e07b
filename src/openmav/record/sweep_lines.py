"""What a sweep is in JSON lines (a header, an effect for each site, an end) and as a table. docs/interventions.md describes both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from openmav.record.codec import plain
from openmav.record.lines import model_of, prompt_of
from openmav.record.sweep import Effect, Plan, SweepEnd

SCHEMA = 1
COLUMNS = ("site", "layer", "head", "logit", "logit_change", "prob", "prob_change", "logprob", "logprob_change")
MINUS_COLUMNS = ("minus_logit", "difference_change")  # where there is a second token


def columns_of(plan: Plan) -> tuple[str, ...]:
    """The names of the table's columns."""
    return COLUMNS + (MINUS_COLUMNS if plan.minus is not None else ())


def row_of(effect: Effect) -> dict[str, Any]:
    """The columns of a site; None for NaN, infinity and the head of what is no head."""
    result: dict[str, Any] = {"site": effect.intervention.place, "layer": effect.layer, "head": effect.intervention.index}
    for name in ("logit", "prob", "logprob"):
        after, before = getattr(effect.after, name), getattr(effect.before, name)
        result |= {name: plain(after), f"{name}_change": plain(after - before)}
    if effect.after.minus_logit is not None:
        result |= {"minus_logit": plain(effect.after.minus_logit), "difference_change": plain(effect.change)}
    return result


def about(plan: Plan) -> dict[str, Any]:
    """What was asked for, and the unchanged model's numbers."""
    return {
        "ablate": plan.what,
        "how": plan.how,
        "target": asdict(plan.target),
        "minus": None if plan.minus is None else asdict(plan.minus),
        "before": plain(asdict(plan.before)),
        "sites": len(plan.sites),
        "missing": {one.place: why for one, why in plan.missing.items()},
    }


def header_line(plan: Plan) -> dict[str, Any]:
    return {"type": "header", "schema": SCHEMA, "model": model_of(plan.info), "prompt": prompt_of(plan.prompt), "sweep": about(plan)}


def effect_line(effect: Effect) -> dict[str, Any]:
    return {"type": "effect", **row_of(effect)}


def end_line(reason: SweepEnd, count: int, seconds: float) -> dict[str, Any]:
    return {"type": "end", "reason": reason, "effects": count, "seconds": seconds}
