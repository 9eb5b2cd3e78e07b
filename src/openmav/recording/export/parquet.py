"""A Parquet table with a row for each token: columns for its plain fields, a (nested) list for each array, JSON under the key "mav"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record.codec import plain
from openmav.record.sweep_lines import columns_of, row_of
from openmav.recording.export.table import NAMES, arrays, rows

if TYPE_CHECKING:
    from openmav.recording.export.run import Run
    from openmav.recording.reader import Recording
    from openmav.recording.sweep import RecordedSweep

ROW_GROUP = 1024  # tokens


def write(run: Run, out: BinaryIO) -> None:
    """Raises UsageError where pyarrow is not installed."""
    pa = _pyarrow()
    made = list(rows(run))
    columns = {name: pa.array([fields[at] for fields, _ in made]) for at, name in enumerate(NAMES)}
    steps = [arrays(step) for _, step in made]
    for name in dict.fromkeys(name for step in steps for name in step):
        columns[name] = nested(name, [step.get(name) for step in steps])
    _write_table(columns, run.recording.meta, out)


def write_sweep(sweep: RecordedSweep, recording: Recording, out: BinaryIO) -> None:
    """A row for each site, with the columns of `mav sweep --csv`. Raises UsageError where pyarrow is not installed."""
    pa = _pyarrow()
    lines = [row_of(effect) for effect in sweep.effects]
    kinds = {"site": pa.string(), "layer": pa.int64(), "head": pa.int64()}
    columns = {name: pa.array([line[name] for line in lines], kinds.get(name, pa.float64())) for name in columns_of(sweep.plan)}
    _write_table(columns, recording.meta, out)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'openmav[parquet]'") from error
    return pa


def _write_table(columns: Mapping[str, Any], meta: Mapping[str, Any], out: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(dict(columns)).replace_schema_metadata({"mav": json.dumps(plain(meta))})
    parquet.write_table(table, out, row_group_size=ROW_GROUP, compression="zstd")


def nested(name: str, values: Sequence[NDArray[Any] | None]) -> Any:
    """A pyarrow array of lists, as many levels deep as they have axes; null for None. Raises UsageError where they have not the same."""
    import pyarrow as pa

    there = [array for array in values if array is not None]
    axes = there[0].ndim
    if any(array.ndim != axes for array in there):
        raise UsageError(f"'{name}' does not have the same axes in every step; mav export --to jsonl keeps it")
    if axes == 0:
        return pa.array([None if array is None else array.item() for array in values])
    texts = there[0].dtype == object
    flat = pa.array(np.concatenate([array.ravel() for array in there]), pa.string() if texts else None, from_pandas=False)
    for axis in range(axes - 1, 0, -1):
        lengths = np.concatenate([np.full(math.prod(array.shape[:axis]), array.shape[axis]) for array in there])
        flat = pa.LargeListArray.from_arrays(_offsets(lengths), flat)
    offsets = _offsets(np.array([0 if array is None else len(array) for array in values]))
    return pa.LargeListArray.from_arrays(offsets, flat, mask=pa.array([array is None for array in values]))


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
