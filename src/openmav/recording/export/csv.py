"""A table with a line for each token: what `steps` in the file has in columns. Arrays are left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from openmav.record import sweep_lines
from openmav.recording.export.table import NAMES, rows

if TYPE_CHECKING:
    from openmav.recording.export.run import Run
    from openmav.recording.reader import Recording
    from openmav.recording.sweep import RecordedSweep


def write(run: Run, out: BinaryIO) -> None:
    write_table(NAMES, (fields for fields, _ in rows(run)), out)


def write_sweep(sweep: RecordedSweep, _recording: Recording, out: BinaryIO) -> None:
    """As `mav sweep --csv`."""
    names = sweep_lines.columns_of(sweep.plan)
    write_table(names, (tuple(map(sweep_lines.row_of(effect).get, names)) for effect in sweep.effects), out)


def write_table(names: Sequence[str], lines: Iterable[tuple[Any, ...]], out: BinaryIO) -> None:
    """The names and the lines, as UTF-8; None is an empty field."""
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(names)
    table.writerows(lines)
    text.detach()
