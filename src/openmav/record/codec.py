"""The only list of a Step's fields outside of its dataclass: what is written of each, and how it is read back.

JSON lines are made from it, and a recording can be. `encode_step` gives plain values and arrays, which a recording keeps as they
are; `plain` turns them into what JSON has, with null for NaN and infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmav.record.step import Baseline, Candidates, Step, Timing, freeze_values, frozen
from openmav.settings.sampling import Sampling


def _same(value: Any) -> Any:
    return value


class Entry(NamedTuple):
    """A field of a Step by its name there."""

    name: str
    write: Callable[[Any], Any] = _same  # to plain values and arrays
    read: Callable[[Any], Any] = _same  # back from them, or from what JSON made of them
    in_lines: bool = True  # JSON lines have it


# ---- values ------------------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """The same as lists, dicts, strings, numbers and None: what JSON has. It has no NaN and no infinity, so both are None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind in "iub" or np.isfinite(value).all() else plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def number(value: float | None) -> float:
    """NaN for null."""
    return math.nan if value is None else float(value)


def _read_floats(values: Any) -> NDArray[np.float32]:
    return frozen(np.asarray(values, dtype=np.float32))


def _read_values(values: Mapping[str, Any]) -> Mapping[str, NDArray]:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return freeze_values({name: array.astype(np.float32) if array.dtype == object else array for name, array in arrays.items()})


def _read_pieces(pieces: Mapping[Any, str]) -> dict[int, str]:
    return {int(token_id): text for token_id, text in pieces.items()}


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))


CANDIDATE_FIELDS, TIMING_FIELDS = _names(Candidates), _names(Timing)


def _write_candidates(candidates: Candidates) -> dict[str, Any]:
    return {name: getattr(candidates, name) for name in CANDIDATE_FIELDS}


def _write_timing(timing: Timing) -> dict[str, Any]:
    return {name: getattr(timing, name) for name in TIMING_FIELDS}


def _read_candidates(columns: Mapping[str, Any]) -> Candidates:
    ids = frozen(np.asarray(columns["token_ids"], dtype=np.int64))
    logits, probs, sampled = (_read_floats(columns[name]) for name in ("logits", "probs", "sampled_probs"))
    return Candidates(ids, tuple(columns["tokens"]), logits, probs, sampled)


def _write_baseline(baseline: Baseline | None) -> dict[str, Any] | None:
    return None if baseline is None else {one.name: one.write(getattr(baseline, one.name)) for one in BASELINE}


def _read_baseline(columns: Mapping[str, Any] | None) -> Baseline | None:
    return None if columns is None else Baseline(**{one.name: one.read(columns[one.name]) for one in BASELINE})


def _write_sampling(sampling: Sampling) -> dict[str, Any]:
    return {**asdict(sampling), "stages": [list(stage) for stage in sampling.stages]}


def read_sampling(content: Mapping[str, Any]) -> Sampling:
    """A sampling whose stages are pairs, or a mapping as in JSON lines. Raises KeyError, TypeError or ValueError for what is none."""
    stages = content["stages"]
    pairs = stages.items() if isinstance(stages, Mapping) else stages
    return Sampling(**{**content, "stages": tuple((str(name), float(value)) for name, value in pairs)})


# ---- the lists ---------------------------------------------------------------------------------------------------------------

BASELINE = (
    Entry("logprob", read=number),
    Entry("entropy", read=number),
    Entry("candidates", _write_candidates, _read_candidates),
    Entry("values", dict, _read_values),
    Entry("pieces", dict, _read_pieces),
)
STEP = (
    Entry("index"),
    Entry("position"),
    Entry("token_id"),
    Entry("token"),
    Entry("text"),
    Entry("special"),
    Entry("logprob", read=number),
    Entry("rank"),
    Entry("entropy", read=number),
    Entry("candidates", _write_candidates, _read_candidates),
    Entry("values", dict, _read_values),
    Entry("pieces", dict, _read_pieces),
    Entry("interventions", list, tuple),
    Entry("before", _write_baseline, _read_baseline),
    Entry("timing", _write_timing, lambda seconds: Timing(**seconds)),
    Entry("forced", in_lines=False),
    Entry("dropped", list, tuple, in_lines=False),
    Entry("sampling", _write_sampling, read_sampling, in_lines=False),
)


def encode_step(step: Step, entries: tuple[Entry, ...] | None = None) -> dict[str, Any]:
    """Its fields by name, as plain values and arrays; `entries`: only these."""
    return {entry.name: entry.write(getattr(step, entry.name)) for entry in (STEP if entries is None else entries)}


def decode_step(content: Mapping[str, Any]) -> Step:
    """The Step that was encoded; from JSON, NaN stands for null.

    Fields that an older version did not write have their defaults, those of a newer one are left out.
    """
    return Step(**{entry.name: entry.read(content[entry.name]) for entry in STEP if entry.name in content})
