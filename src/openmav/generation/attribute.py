"""Which tokens a prediction depends on: asks the backend, and compares its pass with what was captured for the same place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmav.backends.base import Backend, Explaining, Progress
from openmav.errors import UsageError
from openmav.generation.detokenize import TokenStrings
from openmav.record import Prompt, Step
from openmav.record.attribution_result import METHODS, Explanation, InputAttribution

DRIFT = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}  # of the largest logit: what cached decoding may differ by


@dataclass(frozen=True)
class AttributionRequest:
    """The method, the index of the generated token (None: the newest), A (None: the token at that index, or the most likely one),
    and B (None: A alone)."""

    method: str
    index: int | None
    token_id: int | None = None
    minus: int | None = None


def attribute(
    backend: Backend,
    strings: TokenStrings,
    prompt: Prompt,
    steps: Sequence[Step],
    request: AttributionRequest,
    progress: Progress | None = None,
) -> InputAttribution:
    """The answer, of the baseline model; `steps` are those of the text so far. An index that no token has yet is the next one's.

    Raises UsageError for what can't be asked, with the reason.
    """
    index = max(0, len(steps) - 1) if request.index is None else request.index
    _check(backend, len(steps), index, request)
    assert isinstance(backend, Explaining)
    step = steps[index] if index < len(steps) else None
    ids = (*prompt.token_ids, *(one.token_id for one in steps[:index]))
    target = request.token_id if request.token_id is not None or step is None else step.token_id
    began = time.perf_counter()
    result, target = backend.explain(request.method, ids, target, request.minus, progress)
    minus = request.minus
    return InputAttribution(
        method=request.method,
        index=index,
        position=len(ids),
        target_id=target,
        target=strings[target],
        minus_id=minus,
        minus=None if minus is None else strings[minus],
        token_ids=ids,
        tokens=(*prompt.tokens, *(one.text or (one.token if one.special else "") for one in steps[:index])),
        scores=result.scores,
        output=float(result.logits[target]) - (0.0 if minus is None else float(result.logits[minus])),
        total=result.total,
        drift=_drift(result, step),
        drift_limit=DRIFT.get(backend.info.dtype, DRIFT["bfloat16"]),
        of_baseline=step is not None and step.before is not None,
        passes=result.passes,
        reference=None if result.reference < 0 else strings[result.reference],
        seconds=time.perf_counter() - began,
    )


def _check(backend: Backend, length: int, index: int, request: AttributionRequest) -> None:
    if request.method not in METHODS:
        raise UsageError(f"unknown attribution method '{request.method}'. Known: {', '.join(METHODS)}")
    if not isinstance(backend, Explaining):
        raise UsageError(f"the backend '{backend.info.backend}' can't say which tokens a prediction depends on; --backend transformers can")
    if not 0 <= index <= length:
        raise UsageError(f"there is no token {index} to explain; there are {length}, counted from 0")
    for token_id in (request.token_id, request.minus):
        if token_id is not None and not 0 <= token_id < backend.info.vocab:
            raise UsageError(f"there is no token {token_id}; this model has tokens 0 to {backend.info.vocab - 1}")
    if request.minus is not None and request.minus == request.token_id:
        raise UsageError("a token minus itself is 0; choose two different tokens")


def _drift(result: Explanation, step: Step | None) -> float:
    """How far the logits of the explained pass are from those that were captured, of the largest; NaN where none were."""
    if step is None:
        return float("nan")
    captured = step.candidates if step.before is None else step.before.candidates
    off = np.abs(result.logits[captured.token_ids] - captured.logits).max()
    return float(off / np.abs(captured.logits).max())
