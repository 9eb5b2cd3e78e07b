"""A Step as rows, made from the one list of a Step's fields in record/codec.py, and a Step from rows.

Plain values are columns, what is nested is JSON in `detail`, and arrays are little-endian bytes with their dtype and shape. The arrays
of `values` have rows of their own, so that a long recording opens without reading them; the others lie one after the other in `data`.
Texts of token ids stand once in the file. A step's `pieces` are those of the ids in its values; where they are not, it has an array of
their ids.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.record import Step, frozen
from openmav.record.codec import STEP, encode_step, plain
from openmav.recording.guard import parsed
from openmav.recording.texts import ids_in, without_texts
from openmav.settings.sampling import Sampling

COLUMNS = (  # in the order of the table: the field of a Step and where it stands in what the codec writes
    ("position",),
    ("token_id",),
    ("token",),
    ("text",),
    ("special",),
    ("forced",),
    ("logprob",),
    ("rank",),
    ("entropy",),
    ("timing", "model"),
    ("timing", "capture"),
    ("timing", "sample"),
)
IN_COLUMNS = frozenset(path[0] for path in COLUMNS) | {"index"}
PLAIN = attrgetter(*map(".".join, COLUMNS))
SHARED = ("sampling", "interventions")  # the same for many steps: a row of `contexts`
SHARED_ENTRIES = tuple(next(entry for entry in STEP if entry.name == name) for name in SHARED)
REST = tuple(entry for entry in STEP if entry.name not in IN_COLUMNS and entry.name not in SHARED)
OWN_ROWS = ("values", "before/values")  # arrays in a table of their own
PIECES = ("pieces", "before/pieces")  # there too, where these are not the ids in the values: those whose texts the file has
DTYPES: dict[str, np.dtype[Any]] = {"<f4": np.dtype("<f4"), "<i8": np.dtype("<i8")}
FLOATS = DTYPES["<f4"]
MOST_AXES = 8
MOST_DETAIL = 8 * 2**20  # bytes of memory for the details of one step, or of one context
COMPACT = json.JSONEncoder(separators=(",", ":"))
JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
ArrayRow: TypeAlias = tuple[str, str, str, bytes]  # name, dtype, shape, data


class BadDataError(ValueError):
    """A row does not hold what a recording holds there."""


class StepRow(NamedTuple):
    """What is written of a step: its plain columns, the JSON of its context and its details, its data, and the arrays by name.

    `texts` are those of token ids that the file does not have yet.
    """

    columns: tuple[Any, ...]
    context: str
    detail: str
    data: bytes
    arrays: list[ArrayRow]
    sum: int
    texts: dict[int, str]


def scalars_of(step: Step) -> tuple[Any, ...]:
    """The plain fields of a step in the order of COLUMNS; None for NaN."""
    return tuple([value if type(value) is int else _column(value) for value in PLAIN(step)])


def rows_of(step: Step, texts: Mapping[int, str]) -> StepRow:
    """The rows of a step. `texts`: those of token ids that the file has."""
    content = encode_step(step, REST)
    columns = scalars_of(step)
    context = _context(step.sampling, step.interventions)
    inline: list[ArrayRow] = []
    own: list[ArrayRow] = []
    new: dict[int, str] = {}
    for pointer, holder in zip(PIECES, (content, content["before"])):
        if holder:
            holder["pieces"], ids = without_texts(holder["pieces"], texts, new)
            if set(ids) != ids_in(holder["values"]):
                own.append((pointer, "<i8", _shape_text((len(ids),)), np.array(ids, "<i8").tobytes()))
    rest = dumps(_without_arrays(content, "", inline, own))
    detail = f'{rest[:-1]},"arrays":{_listed(tuple([array[:3] for array in inline]))}}}'
    data = b"".join([array[3] for array in inline])
    own.sort()
    return StepRow(columns, context, detail, data, own, checksum(step.index, columns, context, detail, data, own), new)


def checksum(index: int, columns: tuple[Any, ...], context: str, detail: str, data: bytes, arrays: list[ArrayRow]) -> int:
    """CRC-32 of a step's rows; the plain columns as their JSON."""
    parts = [COMPACT.encode([index, *columns]).encode(), context.encode(), detail.encode(), data]
    for name, dtype, shape, bits in arrays:
        parts += f"{name} {dtype} {shape}".encode(), bits
    return zlib.crc32(b"".join(parts))


def sum_of(content: Any) -> int:
    """CRC-32 of plain values as JSON, whatever the order of the names in them."""
    return zlib.crc32(json.dumps(content, separators=(",", ":"), sort_keys=True).encode())


def step_of(index: int, columns: tuple[Any, ...], context: Mapping[str, Any], detail: str, data: bytes, values: Mapping[str, Any]) -> Step:
    """The Step of these rows. `values` takes the place of the arrays that have rows of their own. Raises BadDataError."""
    try:
        content = parsed(detail, MOST_DETAIL)
        content["index"] = index
        for path, value in zip(COLUMNS, columns):
            into = content if len(path) == 1 else content.setdefault(path[0], {})
            into[path[-1]] = value
        content["special"], content["forced"] = bool(content["special"]), bool(content["forced"])
        start = 0
        for name, dtype, shape in content.pop("arrays"):
            array = array_of(dtype, shape, data, start)
            start += array.nbytes
            _place(content, name, array)
        own_before = bool(content.get("before"))
        content["values"] = {}
        if own_before:
            content["before"]["values"] = {}
        step = Step(**{e.name: e.read(content[e.name]) for e in STEP if e.name in content and e.name not in SHARED}, **context)
        need_sound(step)
    except BadDataError:
        raise
    except Exception as error:  # whatever a damaged file brings
        raise BadDataError(f"step {index} cannot be read: {type(error).__name__}") from error
    object.__setattr__(step, "values", values)  # read when it is asked for
    return step


def read_context(text: str) -> dict[str, Any]:
    """The fields of a Step that a row of `contexts` holds. Raises ValueError, TypeError or KeyError for what is no such row."""
    content = parsed(text, MOST_DETAIL)
    result = {entry.name: entry.read(content[entry.name]) for entry in STEP if entry.name in SHARED}
    if not all(isinstance(spec, str) for spec in result["interventions"]):
        raise ValueError("interventions")
    return result


def array_of(dtype: str, shape: Any, data: bytes, start: int = 0) -> NDArray[Any]:
    """A read-only array of these bytes. Raises BadDataError where they are not what dtype and shape say."""
    if dtype not in DTYPES or not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise BadDataError("an array of an unknown kind")
    if not all_of(int, shape) or min(shape, default=0) < 0:
        raise BadDataError("an array with a wrong shape")
    count = math.prod(shape)
    if start + count * DTYPES[dtype].itemsize > len(data):
        raise BadDataError("an array that is shorter than its shape says")
    return frozen(np.frombuffer(data, DTYPES[dtype], count, start).reshape(shape).astype(DTYPES[dtype].newbyteorder("="), copy=False))


def all_of(kind: type, values: Iterable[Any]) -> bool:
    """Whether each of them is of just this type; a long recording asks a million times."""
    return {*map(type, values)} <= {kind}


def kind_of(array: NDArray[Any]) -> str:
    """The dtype that a file has of it."""
    return "<i8" if array.dtype.kind in "iu" else "<f4"


@lru_cache(maxsize=64)
def _context(sampling: Sampling, interventions: tuple[str, ...]) -> str:
    """The JSON of what steps share, in the order of SHARED."""
    values = {"sampling": sampling, "interventions": interventions}
    return dumps({name: entry.write(values[name]) for name, entry in zip(SHARED, SHARED_ENTRIES)})


def dumps(value: Any) -> str:
    """JSON without spaces, with null for NaN and infinity."""
    try:
        return JSON.encode(value)
    except (ValueError, TypeError):  # a number that JSON has not, or numpy's
        return JSON.encode(plain(value))


@lru_cache(maxsize=1024)
def _shape_text(shape: tuple[int, ...]) -> str:
    return JSON.encode(shape)


def size_of(dtype: str, shape: str) -> int:
    """Bytes of an array; -1 where there is no such array."""
    try:
        sizes = json.loads(shape)
        whole = isinstance(sizes, list) and len(sizes) <= MOST_AXES and all(type(size) is int and size >= 0 for size in sizes)
        return math.prod(sizes) * DTYPES[dtype].itemsize if whole else -1
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1


def _column(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return value if value == value else None  # SQLite has no NaN
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if kind is bool:
        return int(value)
    return _column(value.item()) if isinstance(value, np.generic) else value


def _without_arrays(value: Mapping[Any, Any], path: str, inline: list[ArrayRow], own: list[ArrayRow]) -> dict[str, Any]:
    """The same without the arrays, which go to one of the lists under their JSON pointers."""
    rest: dict[str, Any] = {}
    arrays = own if path in OWN_ROWS else inline
    for key, one in value.items():
        if type(one) is np.ndarray:
            arrays.append((_pointer(path, key), *_bits(one)))
        elif type(one) is dict or isinstance(one, Mapping):
            rest[str(key)] = _without_arrays(one, _pointer(path, key), inline, own) if one else {}
        else:
            rest[str(key)] = one
    return rest


def _bits(array: NDArray[Any]) -> tuple[str, str, bytes]:
    """What a file has of an array: dtype, shape, data."""
    if array.dtype is FLOATS:  # nearly all
        return "<f4", _shape_text(array.shape), array.tobytes()
    dtype = kind_of(array)
    return dtype, _shape_text(array.shape), array.astype(DTYPES[dtype], copy=False).tobytes()


@lru_cache(maxsize=1024)
def _listed(arrays: tuple[tuple[str, str, str], ...]) -> str:
    """JSON of the arrays in `data`; the same for most steps."""
    return JSON.encode([[name, dtype, json.loads(shape)] for name, dtype, shape in arrays])


@lru_cache(maxsize=1024)
def _pointer(path: str, key: Any) -> str:
    """The JSON pointer of an entry."""
    return f"{path}/{_escaped(str(key))}" if path else str(key)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def _place(content: dict[str, Any], pointer: str, array: NDArray[Any]) -> None:
    path, last = _path(pointer)
    for name in path:
        content = content[name]
    content[last] = array


@lru_cache(maxsize=1024)
def _path(pointer: str) -> tuple[tuple[str, ...], str]:
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/"))
    return tuple(path), last


def measure_name(pointer: str) -> tuple[str, str]:
    """(of the step or of its baseline, the name in `values`) of an array with a row of its own. Raises BadDataError."""
    for prefix in OWN_ROWS:
        if pointer.startswith(f"{prefix}/"):
            return prefix, pointer[len(prefix) + 1 :].replace("~1", "/").replace("~0", "~")
    raise BadDataError("an array without a place")


def need_sound(step: Step) -> None:
    """Raises BadDataError for a step whose fields are of the wrong kind."""
    whole = (step.index, step.position, step.token_id, step.rank)
    good = all_of(int, whole) and isinstance(step.token, str) and isinstance(step.text, str)
    good = good and step.index >= 0
    for candidates in _candidates(step):
        k = len(candidates.tokens)
        arrays = (candidates.token_ids, candidates.logits, candidates.probs, candidates.sampled_probs)
        good = good and k > 0 and {array.shape for array in arrays} == {(k,)} and all_of(str, candidates.tokens)
    good = good and all_of(str, step.dropped) and all_of(str, step.pieces.values())
    good = good and isinstance(step.logprob, float) and isinstance(step.entropy, float)
    good = good and all(isinstance(s, (int, float)) for s in (step.timing.model, step.timing.capture, step.timing.sample))
    if not good:
        raise BadDataError(f"step {step.index} has a field of the wrong kind")


def _candidates(step: Step) -> Iterator[Any]:
    yield step.candidates
    if step.before is not None:
        yield step.before.candidates
