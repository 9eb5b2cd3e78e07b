"""Many prompts from a file or a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from openmav.cli.options.settings import read_file
from openmav.errors import UsageError

COLUMN = "prompt"


def read_prompts(source: str) -> list[str]:
    """The prompts of a .jsonl or .csv file, of a folder of .txt files (by name), or the lines of any other file.

    Raises UsageError for one that can't be read, naming its line, and for none.
    """
    if Path(source).is_dir():
        files = sorted(Path(source).glob("*.txt"))
        prompts = [read_file(str(file), "the folder", "the prompt file") for file in files]
        places = [str(file) for file in files]
    else:
        text = read_file(source, "the prompts", "the prompts")
        kind = Path(source).suffix.lower()
        rows = list(_jsonl(source, text) if kind == ".jsonl" else _csv(source, text) if kind == ".csv" else enumerate(text.split("\n"), 1))
        if kind not in (".jsonl", ".csv"):
            rows = [row for row in rows if row[1].strip()]
        prompts, places = [prompt for _, prompt in rows], [f"{source}, line {line}" for line, _ in rows]
    for prompt, place in zip(prompts, places, strict=True):
        if not prompt:
            raise UsageError(f"{place}: the prompt is empty; give some text, or leave it out")
    if not prompts:
        raise UsageError(
            f"{source} has no prompts; give a .jsonl or .csv file, a folder of .txt files, or a text file with a prompt a line"
        )
    return prompts


def _jsonl(source: str, text: str) -> Iterator[tuple[int, str]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{source}, line {line}: this is no JSON; each line is a string, or an object with '{COLUMN}'") from error
        prompt = row.get(COLUMN) if isinstance(row, dict) else row
        if not isinstance(prompt, str):
            raise UsageError(f"{source}, line {line}: there is no text under '{COLUMN}'; each line is a string, or an object with it")
        yield line, prompt


def _csv(source: str, text: str) -> Iterator[tuple[int, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if COLUMN not in (reader.fieldnames or ()):
            raise UsageError(f"{source} has no column '{COLUMN}'; name the column of the prompts so in its first line")
        for row in reader:
            yield reader.line_num, row[COLUMN] or ""
    except csv.Error as error:
        raise UsageError(f"{source}, line {reader.line_num}: {error}") from error
