"""A recording in other formats, a module each: the table of them. run.py has what each is made of.

A format is a module with `write(run, out)`: `run` is a `Run`, `out` a binary file open for writing. It raises UsageError, in one line,
for what it can't write. A row in FORMATS makes `mav export --to NAME` of it. Those in SWEEP_FORMATS also have
`write_sweep(sweep, recording, out)` for the recording of a sweep.
"""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """`suffix` of its files; `module`: whose `write` writes it; `text`: whether it is text, which a terminal or a pipe takes."""

    suffix: str
    module: str
    text: bool
    about: str


FORMATS = {
    "html": Format(".html", "openmav.recording.export.page", True, "one web page that needs no network: to read, to show and to print"),
    "jsonl": Format(".jsonl", "openmav.recording.export.jsonl", True, "JSON lines as of mav --json; mav import makes a recording of them"),
    "csv": Format(".csv", "openmav.recording.export.csv", True, "a table with a line for each token, without arrays"),
    "sweeps": Format(".sweeps.csv", "openmav.recording.export.sweeps", True, "a table of the sweeps inside of a run, a line for each site"),
    "parquet": Format(
        ".parquet", "openmav.recording.export.parquet", False, "a table with a row for each token, arrays as lists (pyarrow)"
    ),
    "npz": Format(".npz", "openmav.recording.export.npz", False, "NumPy arrays by column and by measure, the first axis the tokens"),
    "svg": Format(
        ".svg", "openmav.recording.export.svg", True, "a picture for a paper: the text tinted by surprise, lens map or candidates"
    ),
    "cast": Format(
        ".cast", "openmav.recording.export.cast", True, "the text as the app shows it, token by token, for asciinema (asciicast v3)"
    ),
}
SWEEP_FORMATS = ("html", "jsonl", "csv", "parquet", "npz")
