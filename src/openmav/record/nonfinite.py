"""Which numbers of a step are not finite and should be: NaN that means "not known" is none of them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from openmav.record.comparison import COMPARISON
from openmav.record.step import Array, ModelInfo, Step, measure_of

ATTRIBUTION = "attribution"
BY_HEAD = ("attention_entropy", "relative_attention_entropy", "sink_share", "attention_rows")  # [layers, heads, ...]


def hiding(parts: Array, missing: Container[int]) -> list[int]:
    """The layers of an attribution [layers, 2, ...] whose own parts are not known; nothing that came before one can be followed."""
    return [layer for layer in range(len(parts)) if layer in missing and np.isnan(parts[layer]).all()]


def nonfinite(step: Step, info: ModelInfo | None) -> tuple[str, ...]:
    """Names of what holds NaN or infinity that is the model's own: "logits", and entries of the step's values."""
    result = () if step.healthy else ("logits",)
    return result + tuple(name for name in step.values if wrong(step, name, info).any())


def wrong(step: Step, measure: str, info: ModelInfo | None) -> NDArray[np.bool_]:
    """Of the shape of the step's entry of that name: True where it holds NaN or infinity that is the model's own."""
    bad: NDArray[np.bool_] = ~np.isfinite(step.values[measure])
    if not bad.any():
        return bad
    if measure_of(measure) == COMPARISON:  # no number of one model: nothing is like the zero vector
        return np.zeros_like(bad)
    name, _, part = measure.partition(".")
    missing = info.missing.get(name, {}) if info else {}
    if name == ATTRIBUTION and part not in ("", "top"):
        return bad & (not _whole_unknown(step, part, missing))
    lost = range(max(hiding(step.values[ATTRIBUTION], missing), default=0)) if name == ATTRIBUTION else ()
    bad[[row for row in range(len(bad)) if row in missing or row in lost]] = False
    if name in BY_HEAD and bad.ndim > 1 and info is not None:
        for layer, heads in enumerate(info.layer_heads):  # a head that the layer does not have is no number of the model
            bad[layer, heads:] = False
    ids = step.values.get(f"{measure}.ids")
    return bad if ids is None else bad & (ids >= 0)


def _whole_unknown(step: Step, part: str, missing: Container[int]) -> bool:
    """Whether a number of the whole attribution is not known: the embedding's below a layer that hides it, all where there is none."""
    parts = step.values[ATTRIBUTION]
    return (part.endswith("embedding") and bool(hiding(parts, missing))) or all(layer in missing for layer in range(len(parts)))
