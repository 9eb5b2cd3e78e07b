"""What happened, frozen: prompts, models, steps, branches. The names below are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmav.record.step import (
        ENDS,
        LARGE,
        RANK_EDGES,
        SAMPLING_STAGES,
        TRUNK,
        USUAL_STAGES,
        Array,
        Baseline,
        Branch,
        Candidates,
        EndReason,
        Ids,
        Missing,
        ModelInfo,
        Prompt,
        Step,
        Timing,
        freeze_values,
        frozen,
        lacking,
        large,
        mean_surprisal,
        measure_of,
        without_large,
    )

__all__ = [
    "ENDS",
    "LARGE",
    "RANK_EDGES",
    "SAMPLING_STAGES",
    "TRUNK",
    "USUAL_STAGES",
    "Array",
    "Baseline",
    "Branch",
    "Candidates",
    "EndReason",
    "Ids",
    "Missing",
    "ModelInfo",
    "Prompt",
    "Step",
    "Timing",
    "freeze_values",
    "frozen",
    "lacking",
    "large",
    "mean_surprisal",
    "measure_of",
    "without_large",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'openmav.record' has no attribute '{name}'")
    return getattr(importlib.import_module("openmav.record.step"), name)
