"""A run as JSON lines: a header, a step for each token, an end. docs/json.md is the reader's description of them.

JSON has no NaN: such a value is null, and a step's "nonfinite" names where the model itself computed one. Values are fp32,
widened to double, so that reading them back gives the same fp32. Output is ASCII: other characters are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav import __version__
from openmav.breakpoints import Hit
from openmav.finite import nonfinite
from openmav.record import Before, Candidates, EndReason, ModelInfo, Prompt, Step
from openmav.settings import Settings

SCHEMA = 1
PER_LAYER = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy")


def header(info: ModelInfo, prompt: Prompt, settings: Settings) -> dict[str, Any]:
    """What was run: the model, the tokens really fed, how tokens are chosen."""
    return {
        "type": "header",
        "schema": SCHEMA,
        "version": __version__,
        "model": model_of(info),
        "prompt": {"text": prompt.text, "token_ids": list(prompt.token_ids), "tokens": list(prompt.tokens)},
        "sampling": asdict(settings.sampling),
        "aggregation": settings.aggregation,
        "interventions": list(settings.interventions),
        "breakpoints": list(settings.breakpoints),
        "constraint": asdict(settings.constraint),
    }


def model_of(info: ModelInfo) -> dict[str, Any]:
    """What is known of a model."""
    model = {key: value for key, value in asdict(info).items() if key not in ("missing", "notes")}
    missing = {name: {str(layer): why for layer, why in layers.items()} for name, layers in info.missing.items()}
    return {**model, "missing": missing, "notes": list(info.notes)}


def step_line(step: Step, info: ModelInfo) -> dict[str, Any]:
    """One token and what the model did at the position that predicted it."""
    before = {} if step.before is None else {"interventions": list(step.interventions), "before": _before(step.before, info)}
    return {
        "type": "step",
        "index": step.index,
        "position": step.position,
        "token_id": step.token_id,
        "token": step.token,
        "text": step.text,
        "special": step.special,
        "logprob": _plain(step.logprob),
        "rank": step.rank if step.rank >= 0 else None,
        "entropy": _plain(step.entropy),
        "candidates": _candidates(step.candidates),
        **_values(step.values, step.pieces, info),
        **before,
        "nonfinite": list(nonfinite(step, info)),
        "timing": {**asdict(step.timing), "total": step.timing.total},
    }


def end_line(reason: EndReason, tokens: int, seconds: float, hit: Hit | None = None) -> dict[str, Any]:
    """`hit` is the breakpoint that held at the last token."""
    held = {"breakpoint": hit.text, "measured": hit.measured} if hit is not None else {}
    return {"type": "end", "reason": reason, "tokens": tokens, "seconds": seconds, **held}


def _candidates(candidates: Candidates) -> list[dict[str, Any]]:
    c = candidates
    columns = (c.token_ids.tolist(), c.tokens, _plain(c.logits), _plain(c.probs), _plain(c.sampled_probs))
    return [dict(zip(("token_id", "token", "logit", "prob", "sampled_prob"), row)) for row in zip(*columns)]


def _values(values: Mapping[str, NDArray], pieces: Mapping[int, str], info: ModelInfo) -> dict[str, Any]:
    """What the measures found: those of each layer, the others by name, and the texts of the tokens that they name."""
    return {
        "layers": _layers(values, info),
        "measures": {name: _plain(value) for name, value in values.items() if name not in PER_LAYER},
        "pieces": {str(token_id): piece for token_id, piece in pieces.items()},
    }


def _before(before: Before, info: ModelInfo) -> dict[str, Any]:
    """What the untouched model says at the same place."""
    said = {"logprob": _plain(before.logprob), "entropy": _plain(before.entropy), "candidates": _candidates(before.candidates)}
    return {**said, **_values(before.values, before.pieces, info)}


def _layers(values: Mapping[str, NDArray], info: ModelInfo) -> list[dict[str, Any]]:
    columns = {name: _plain(values[name]) if name in values else [None] * info.layers for name in PER_LAYER}
    return [
        {"index": layer, **{name: None if layer in info.missing.get(name, ()) else column[layer] for name, column in columns.items()}}
        for layer in range(info.layers)
    ]


def _plain(value: Any) -> Any:
    """Lists and floats of an array or number, null for NaN and infinity."""
    array = np.asarray(value)
    return array.tolist() if np.isfinite(array).all() else _nulls(array.tolist())


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(item) for item in value]
    return value if math.isfinite(value) else None


class JsonLines:
    """Writes each line whole and at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._info: ModelInfo | None = None

    def begin(self, info: ModelInfo, prompt: Prompt, settings: Settings) -> None:
        self._info = info
        self._line(header(info, prompt, settings))

    def step(self, step: Step) -> None:
        assert self._info is not None, "begin comes first"
        self._line(step_line(step, self._info))

    def end(self, reason: EndReason, steps: list[Step], seconds: float, hit: Hit | None = None) -> None:
        self._line(end_line(reason, len(steps), seconds, hit))

    def fail(self) -> None:
        """A run that failed has no end line."""

    def _line(self, content: dict[str, Any]) -> None:
        self._write(json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")
