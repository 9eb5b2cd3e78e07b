"""`mav import`: a recording made of JSON lines, those of `mav export` exactly, those of `mav --json` as far as they tell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openmav.errors import UsageError
from openmav.record import TRUNK, Candidates, ModelInfo, Step, frozen
from openmav.record.codec import decode_step, read_sampling
from openmav.record.lines import COLUMNS, PER_LAYER, SCHEMA
from openmav.recording.facts import model_content, read_constraint, read_model, read_prompt
from openmav.recording.guard import WRONG
from openmav.recording.rows import DTYPES, BadDataError, need_sound
from openmav.recording.sqlite_writer import Writer, made_at_once
from openmav.settings import Settings
from openmav.settings.sampling import Sampling

MOST_LINE = 64 * 2**20  # bytes
MOST_NUMBERS = 2**24  # in the arrays of a step


def import_lines(source: Path, target: Path) -> int:
    """Writes the recording `target`; how many tokens it has.

    Raises UsageError, which names the line, where the lines are not those of a run, and where the target exists or can't be written.
    """
    try:
        with source.open("rb") as file:
            lines = _lines(file, source)
            number, head = next(lines, (1, {}))
            with Naming(source, number):
                start = Header(head)
            with made_at_once(target) as writer:
                return _write(start, lines, writer, source)
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}") from error


class Header:
    """The first line: the model, the branches, the sampling, and what the file says of the run."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        if line.get("type") != "header" or line.get("schema") != SCHEMA:
            raise ValueError(f"the first line is not a header of schema {SCHEMA}")
        if "sweep" in line:
            raise ValueError("these are the lines of a sweep; mav import reads those of a run")
        self.info: ModelInfo = read_model(line["model"])
        self.sampling = read_sampling(line["sampling"])
        more = line.get("recording", {})
        prompt = {"special": [False] * len(line["prompt"]["token_ids"]), **line["prompt"]}
        self.branches = [
            (str(one["name"]), one["parent"], int(one["at"]), read_prompt(one["prompt"]))
            for one in more.get("branches") or [{"name": TRUNK, "parent": None, "at": 0, "prompt": prompt}]
        ]
        self.events = [(str(b), int(tokens), json.loads(what), float(s)) for s, b, tokens, what in more.get("events", [])]
        self.meta = {"version": line["version"], "settings": asdict(_settings(line, self.info, self.sampling)), **more.get("meta", {})}
        self.meta |= {"model": model_content(self.info)}
        self.has_state = "state" in self.meta


class Naming:
    """What goes wrong inside is a UsageError that names the line."""

    def __init__(self, source: Path, number: int) -> None:
        self._where = f"line {number} of {source}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WRONG):
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{self._where} is not a line of mav --json: {what}") from error


def _lines(file: BinaryIO, source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while data := file.readline(MOST_LINE):
        number += 1
        with Naming(source, number):
            if len(data) == MOST_LINE:
                raise ValueError("it is too long")
            line = json.loads(data)
            if not isinstance(line, dict):
                raise ValueError("it is no object")
        yield number, line


def _write(start: Header, lines: Iterator[tuple[int, dict[str, Any]]], writer: Writer, source: Path) -> int:
    count, end, last = 0, None, start.sampling
    numbers: dict[str | None, int] = {}
    with writer.transaction():
        writer.set_meta({name: value for name, value in start.meta.items() if name != "journal"})
        for name, parent, at, prompt in start.branches:
            numbers[name] = writer.put_branch(name, numbers.get(parent), at, prompt)
        for event in start.events:
            writer.put_event(*event)
        for number, line in lines:
            with Naming(source, number):
                if line.get("type") == "end":
                    end = line
                    break
                step = read_step(line, start)
                writer.put_step(numbers[line.get("branch", start.branches[0][0])], step)
                last, count = step.sampling, count + 1
        if not start.has_state:
            reason = end.get("reason") if end is not None else None
            status = "ended" if reason else "paused"
            writer.set_meta({"state": {"status": status, "reason": reason, "branch": TRUNK, "tokens": count, "sampling": asdict(last)}})
    return count


# ---- a step ------------------------------------------------------------------------------------------------------------------


def read_step(line: Mapping[str, Any], start: Header) -> Step:
    """The step of a line. Raises one of WRONG for what is none."""
    if line.get("type") != "step":
        raise ValueError(f"its type is {line.get('type')!r}, not 'step'")
    content = _content(line, line.get("arrays"), line.get("infinite", {}), "")
    content["rank"] = -1 if line.get("rank") is None else line["rank"]
    content["timing"] = {name: seconds for name, seconds in line["timing"].items() if name != "total"}
    content["before"] = None
    if line.get("before") is not None:
        content["before"] = _content(line["before"], line.get("arrays_before"), line.get("infinite", {}), "before/")
    sampling = read_sampling(line["sampling"]) if "sampling" in line else start.sampling
    step = replace(decode_step({name: value for name, value in content.items() if name != "sampling"}), sampling=sampling)
    try:
        need_sound(step)
    except BadDataError as error:
        raise ValueError(str(error)) from error
    return step


def _content(line: Mapping[str, Any], shapes: Any, infinite: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The fields of a step or of its baseline, as the codec writes them."""
    content = {name: value for name, value in line.items() if name not in ("layers", "measures", "candidates")}
    rows = [[row[name] for name in COLUMNS] for row in line["candidates"]]
    content["candidates"] = {one.name: list(column) for one, column in zip(fields(Candidates), zip(*rows))}
    values = {name: [layer[name] for layer in line["layers"]] for name in PER_LAYER}
    values = {name: column for name, column in values.items() if name in shapes} if shapes is not None else _there(values)
    values |= line["measures"]
    kinds = {name: shapes[name] if shapes is not None else _guessed(value) for name, value in values.items()}
    if sum(math.prod(shape) for _, shape in kinds.values()) > MOST_NUMBERS:
        raise ValueError("its arrays are too large")
    content["values"] = {name: _array(value, *kinds[name]) for name, value in values.items()}
    for name, places in infinite.items():
        if name.startswith(path) and (path or not name.startswith("before/")):
            _put_infinite(content, name[len(path) :], places)
    return content


def _there(values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Those that a layer has; a line says nothing else of what was not measured."""
    return {name: column for name, column in values.items() if any(one is not None for one in column)}


def _array(values: Any, dtype: str, shape: list[int]) -> NDArray[Any]:
    """The array; null is NaN, and all that a layer has where it stands for a row of them."""
    array = np.array(_filled(values, shape), dtype=DTYPES[dtype])
    array = array.reshape(shape) if array.size == 0 else array
    if list(array.shape) != shape:
        raise ValueError(f"an array is not of the shape {shape}")
    return frozen(array.astype(DTYPES[dtype].newbyteorder("="), copy=False))


def _guessed(values: Any) -> tuple[str, list[int]]:
    """Dtype and shape of nested lists in which null may stand for a row."""
    if not isinstance(values, list):
        return ("<i8" if isinstance(values, int) else "<f4"), []
    inner = [_guessed(one) for one in values]
    whole = bool(inner) and all(dtype == "<i8" for dtype, _ in inner)
    return ("<i8" if whole else "<f4"), [len(values), *max((shape for _, shape in inner), key=len, default=[])]


def _filled(values: Any, shape: list[int]) -> Any:
    if not shape:
        return values
    if values is None:
        return np.full(shape, np.nan).tolist()
    return [_filled(one, shape[1:]) for one in values] if len(shape) > 1 else values


def _put_infinite(content: dict[str, Any], name: str, places: list[list[int]]) -> None:
    part, _, key = name.partition("/")
    into = content[part] if key else content
    if not isinstance(into[key or part], np.ndarray) and not isinstance(into[key or part], list):
        into[key or part] = math.inf * places[0][1]
        return
    array = np.array(into[key or part], dtype=np.float32)
    for at, sign in places:
        array.flat[at] = math.inf * sign
    into[key or part] = frozen(array)


# ---- what was asked for ------------------------------------------------------------------------------------------------------


def _settings(line: Mapping[str, Any], info: ModelInfo, sampling: Sampling) -> Settings:
    """As far as a header of `mav --json` has them."""
    return Settings(
        model=info.name,
        prompt=line["prompt"]["text"] or None,
        backend=info.backend,
        dtype=info.dtype,
        sampling=sampling,
        constraint=read_constraint(line["constraint"]),
        aggregation=line["aggregation"],
        interventions=tuple(map(str, line["interventions"])),
        breakpoints=tuple(map(str, line["breakpoints"])),
    )
