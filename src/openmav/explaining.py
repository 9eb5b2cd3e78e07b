"""Asking a backend which tokens a prediction depends on, and comparing its pass with what was captured for the same place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmav.backends._base import Backend, Explaining, Progress
from openmav.detokenize import Pieces
from openmav.errors import UsageError
from openmav.explained import METHODS, Explanation, InputAttribution
from openmav.record import Prompt, Step

DRIFT = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}  # of the largest logit: what cached decoding may differ by


@dataclass(frozen=True)
class Asked:
    """The method, the index of the generated token (None: the newest), A (None: the token that stands there, or the likeliest),
    and B (None: A alone)."""

    method: str
    index: int | None
    token_id: int | None = None
    minus: int | None = None


def explain(
    backend: Backend, pieces: Pieces, prompt: Prompt, steps: Sequence[Step], asked: Asked, progress: Progress | None = None
) -> InputAttribution:
    """The answer, of the untouched model; `steps` are those of the text so far. An index that no token has yet is the next one's.

    Raises UsageError for what can't be asked, with the reason.
    """
    index = max(0, len(steps) - 1) if asked.index is None else asked.index
    _check(backend, len(steps), index, asked)
    assert isinstance(backend, Explaining)
    step = steps[index] if index < len(steps) else None
    ids = (*prompt.token_ids, *(one.token_id for one in steps[:index]))
    target = asked.token_id if asked.token_id is not None or step is None else step.token_id
    began = time.perf_counter()
    found, target = backend.explain(asked.method, ids, target, asked.minus, progress)
    minus = asked.minus
    return InputAttribution(
        method=asked.method,
        index=index,
        position=len(ids),
        target_id=target,
        target=pieces[target],
        minus_id=minus,
        minus=None if minus is None else pieces[minus],
        token_ids=ids,
        tokens=(*prompt.tokens, *(one.text or (one.token if one.special else "") for one in steps[:index])),
        scores=found.scores,
        output=float(found.logits[target]) - (0.0 if minus is None else float(found.logits[minus])),
        total=found.total,
        drift=_drift(found, step),
        drift_limit=DRIFT.get(backend.info.dtype, DRIFT["bfloat16"]),
        untouched=step is not None and step.before is not None,
        passes=found.passes,
        reference=None if found.reference < 0 else pieces[found.reference],
        seconds=time.perf_counter() - began,
    )


def _check(backend: Backend, length: int, index: int, asked: Asked) -> None:
    if asked.method not in METHODS:
        raise UsageError(f"unknown attribution method '{asked.method}'. Known: {', '.join(METHODS)}")
    if not isinstance(backend, Explaining):
        raise UsageError(f"the backend '{backend.info.backend}' cannot say which tokens a prediction depends on")
    if not 0 <= index <= length:
        raise UsageError(f"there is no token {index} to explain; there are {length}, counted from 0")
    for token_id in (asked.token_id, asked.minus):
        if token_id is not None and not 0 <= token_id < backend.info.vocab:
            raise UsageError(f"there is no token {token_id}; this model has tokens 0 to {backend.info.vocab - 1}")
    if asked.minus is not None and asked.minus == asked.token_id:
        raise UsageError("a token minus itself is 0; choose two different tokens")


def _drift(found: Explanation, step: Step | None) -> float:
    """How far the logits of the explained pass are from those that were captured, of the largest; NaN where none were."""
    if step is None:
        return float("nan")
    captured = step.candidates if step.before is None else step.before.candidates
    off = np.abs(found.logits[captured.token_ids] - captured.logits).max()
    return float(off / np.abs(captured.logits).max())
