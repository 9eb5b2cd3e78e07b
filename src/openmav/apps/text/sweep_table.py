"""A sweep for scripts: JSON lines (a header, an effect for each site, an end) or CSV. docs/interventions.md describes both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from openmav.analysis.sweep import Effect, Plan, Reading
from openmav.record.codec import plain
from openmav.record.lines import model_of, write_line

SCHEMA = 1
COLUMNS = ("site", "layer", "head", "logit", "logit_change", "prob", "prob_change", "logprob", "logprob_change")
MINUS_COLUMNS = ("minus_logit", "difference_change")  # where there is a second token


def row_of(effect: Effect) -> dict[str, Any]:
    """The columns of a site; None for NaN, infinity and the head of what is no head."""
    result: dict[str, Any] = {"site": effect.intervention.place, "layer": effect.layer, "head": effect.intervention.index}
    for name in ("logit", "prob", "logprob"):
        after, before = getattr(effect.after, name), getattr(effect.before, name)
        result |= {name: plain(after), f"{name}_change": plain(after - before)}
    if effect.after.minus_logit is not None:
        result |= {"minus_logit": plain(effect.after.minus_logit), "difference_change": plain(effect.change)}
    return result


class JsonTable:
    """JSON lines, each written whole and at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def begin(self, plan: Plan) -> None:
        about = {
            "ablate": plan.what,
            "how": plan.how,
            "target": asdict(plan.target),
            "minus": None if plan.minus is None else asdict(plan.minus),
            "before": _reading(plan.before),
            "sites": len(plan.sites),
            "missing": {one.place: why for one, why in plan.missing.items()},
        }
        prompt = {"text": plan.prompt.text, "token_ids": list(plan.prompt.token_ids), "tokens": list(plan.prompt.tokens)}
        self._line({"type": "header", "schema": SCHEMA, "model": model_of(plan.info), "prompt": prompt, "sweep": about})

    def add(self, effect: Effect) -> None:
        self._line({"type": "effect", **row_of(effect)})

    def end(self, reason: Literal["done", "interrupt"], count: int, seconds: float) -> None:
        self._line({"type": "end", "reason": reason, "effects": count, "seconds": seconds})

    def _line(self, content: dict[str, Any]) -> None:
        self._write(write_line(content))


class CsvTable:
    """A line of names, then one for each site; empty for what a site does not have."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._names: tuple[str, ...] = COLUMNS

    def begin(self, plan: Plan) -> None:
        self._names = COLUMNS + (MINUS_COLUMNS if plan.minus is not None else ())
        self._line(self._names)

    def add(self, effect: Effect) -> None:
        row = row_of(effect)
        self._line(tuple("" if row[name] is None else row[name] for name in self._names))

    def end(self, reason: Literal["done", "interrupt"], count: int, seconds: float) -> None:
        """CSV has no last line of its own."""

    def _line(self, values: tuple[Any, ...]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._write(text.getvalue())


def _reading(reading: Reading) -> dict[str, float | None]:
    return {name: plain(value) for name, value in asdict(reading).items()}
