"""NumPy's own format: an array for each column and each measure, its first axis the tokens; nothing in it is pickled.

Where a measure's arrays are of several sizes, such as attention rows over a growing text, they are padded with NaN (ids: -1). Where
only some tokens have it, `NAME.rows` says which. A sweep of the run is a map, `sweep.1` [layers, heads or 1], NaN for a site that was not
computed; what it is of is in `meta`, under the same name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record.codec import plain
from openmav.record.sweep_lines import columns_of, row_of
from openmav.recording.export.table import NAMES, arrays, rows
from openmav.recording.run_sweeps import sweeps_of

if TYPE_CHECKING:
    from openmav.recording.export.run import Run
    from openmav.recording.reader import Recording
    from openmav.recording.sweep import RecordedSweep

MOST_BYTES = 2**30  # of one array


def write(run: Run, out: BinaryIO) -> None:
    columns: list[list[Any]] = [[] for _ in NAMES]
    parts: dict[str, list[NDArray[Any]]] = {}
    at: dict[str, list[int]] = {}
    for row, (fields, step) in enumerate(rows(run)):
        for column, value in zip(columns, fields):
            column.append(value)
        for name, array in arrays(step).items():
            parts.setdefault(name, []).append(array.astype(np.str_) if array.dtype == object else array)
            at.setdefault(name, []).append(row)
    result = {name: _column(values) for name, values in zip(NAMES, columns)}
    for name, values in parts.items():
        result[name] = stacked(name, values)
        if len(values) < len(columns[0]):
            result[f"{name}.rows"] = np.array(at[name], np.int64)
    for sweep in sweeps_of(run.now):
        result[f"sweep.{sweep.number}"] = np.where(sweep.known, sweep.changes, np.nan)
    result["meta"] = np.array(json.dumps(plain(run.recording.meta)))
    np.savez_compressed(out, **{name.replace("/", "_"): array for name, array in result.items()})  # type: ignore[arg-type]


def write_sweep(sweep: RecordedSweep, recording: Recording, out: BinaryIO) -> None:
    """The columns of the table, NaN (ids: -1) for what a site does not have, and "change" [layers, heads] as a map, NaN for no effect."""
    lines = [row_of(effect) for effect in sweep.effects]
    result: dict[str, NDArray[Any]] = {"site": np.array([line["site"] for line in lines], dtype=np.str_)}
    for name in columns_of(sweep.plan)[1:]:
        whole = name in ("layer", "head")
        none = -1 if whole else np.nan
        result[name] = np.array([none if line[name] is None else line[name] for line in lines], dtype=np.int64 if whole else np.float64)
    change = np.full((sweep.plan.info.layers, sweep.plan.columns), np.nan)
    for effect in sweep.effects:
        change[effect.layer, effect.column] = effect.change
    np.savez_compressed(out, **result, change=change, meta=np.array(json.dumps(plain(recording.meta))))  # type: ignore[arg-type]


def stacked(name: str, values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """All of them as one array. Raises UsageError where they have not the same axes, or where it would be too large."""
    first = values[0]
    if any(array.ndim != first.ndim for array in values):
        raise UsageError(f"'{name}' does not have the same axes in every step; mav export --to parquet or jsonl keeps it")
    shape = tuple(map(max, zip(*(array.shape for array in values))))
    if len(values) * math.prod(shape) * first.itemsize > MOST_BYTES:
        raise UsageError(f"'{name}' would be an array of more than {MOST_BYTES >> 30} GB; mav export --to parquet or jsonl keeps it")
    if all(array.shape == shape for array in values):
        return np.stack(values)
    padding: Any = "" if first.dtype.kind == "U" else np.nan if first.dtype.kind == "f" else -1
    whole = np.full((len(values), *shape), padding, dtype=np.result_type(*{array.dtype for array in values}))
    for row, array in zip(whole, values):
        row[tuple(slice(size) for size in array.shape)] = array
    return whole


def _column(values: list[Any]) -> NDArray[Any]:
    if any(isinstance(value, str) for value in values):
        return np.array(values, dtype=np.str_)
    floats = any(isinstance(value, float) or value is None for value in values)
    return np.array(values, dtype=np.float64 if floats else np.int64)
