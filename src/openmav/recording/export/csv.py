"""A table with a line for each token: what `steps` in the file has in columns. Arrays are left out."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, BinaryIO

from openmav.recording.export.table import NAMES, rows

if TYPE_CHECKING:
    from openmav.recording.export.run import Run


def write(run: Run, out: BinaryIO) -> None:
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(NAMES)
    for fields, _ in rows(run):
        table.writerow(fields)
    text.detach()
