"""A sweep for scripts, written as it comes: JSON lines (a header, an effect for each site, an end) or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from openmav.record.lines import write_line
from openmav.record.sweep import Effect, Plan, SweepEnd
from openmav.record.sweep_lines import columns_of, effect_line, end_line, header_line, row_of


class JsonTable:
    """JSON lines, each written whole and at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def begin(self, plan: Plan) -> None:
        self._write(write_line(header_line(plan)))

    def add(self, effect: Effect) -> None:
        self._write(write_line(effect_line(effect)))

    def end(self, reason: SweepEnd, count: int, seconds: float) -> None:
        self._write(write_line(end_line(reason, count, seconds)))


class CsvTable:
    """A line of names, then one for each site; empty for what a site does not have."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._names: tuple[str, ...] = ()

    def begin(self, plan: Plan) -> None:
        self._names = columns_of(plan)
        self._line(self._names)

    def add(self, effect: Effect) -> None:
        row = row_of(effect)
        self._line(tuple("" if row[name] is None else row[name] for name in self._names))

    def end(self, reason: SweepEnd, count: int, seconds: float) -> None:
        """CSV has no last line of its own."""

    def _line(self, values: tuple[Any, ...]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._write(text.getvalue())
