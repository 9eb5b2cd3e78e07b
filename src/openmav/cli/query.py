"""`mav query`: a SELECT over the recordings of a folder, as a table, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from openmav.cli.output import Output, ReaderGoneError, echo
from openmav.errors import UsageError
from openmav.paint.text import cells, fit, one_line
from openmav.recording.query import Query, recordings_in
from openmav.system.logs import stdout
from openmav.system.signals import check

MOST = 60  # cells of a column of the table


def query_command(place: str, statement: str, as_csv: bool, as_json: bool) -> int:
    """Print the rows. Raises UsageError for a wrong query, and for what is no recording."""
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other; leave one out")
    query = Query(recordings_in(place), statement)
    try:
        if as_csv or as_json:
            _for_programs(query, as_json)
        else:
            _table(query)
    except ReaderGoneError:
        return 0
    finally:
        query.close()
    return 0


def _for_programs(query: Query, as_json: bool) -> None:
    out = Output(stdout())
    if not as_json:
        out.write(_csv(query.columns))
    for row in query:
        values = [_plain(value) for value in row]
        out.write(json.dumps(dict(zip(query.columns, values, strict=True))) + "\n" if as_json else _csv(values))
        check()


def _csv(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _plain(value: Any) -> Any:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else value


def _table(query: Query) -> None:
    """Columns as wide as what is in them; numbers at the right."""
    rows = [[_shown(value) for value in row] for row in query]
    check()
    numbers = [all(right for _, right in column) for column in zip(*rows, strict=True)] or [False] * len(query.columns)
    texts = [[one_line(name) for name in query.columns], *([text for text, _ in row] for row in rows)]
    widths = [min(MOST, max(map(cells, column))) for column in zip(*texts, strict=True)]
    for row in texts:
        echo("  ".join(fit(text, width, ">" if right else "<") for text, width, right in zip(row, widths, numbers, strict=True)).rstrip())


def _shown(value: Any) -> tuple[str, bool]:
    """A cell, and whether it is a number."""
    if value is None:
        return "", True
    if isinstance(value, float):
        return f"{value:.6g}", True
    return one_line(str(_plain(value))), isinstance(value, int)
