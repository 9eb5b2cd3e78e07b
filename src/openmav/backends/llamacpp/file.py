"""The GGUF file of a model: found, with all of its parts, and checked before llama.cpp opens it.

llama.cpp ends the process where a file's numbers make no sense to it, and takes what memory they ask for. Only headers are read here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openmav.backends.llamacpp import demo_file
from openmav.backends.llamacpp.context import MOST
from openmav.backends.loading import checkpoint, gguf_metadata
from openmav.backends.loading.gguf_metadata import PART, PER_BYTE, GgufHeader, HeaderError, Tensor
from openmav.errors import LoadError, words_of
from openmav.settings import DEMO

MOST_LAYERS = 512  # as llama.cpp has it
LONGEST_TEMPLATE = 1_000_000  # characters; the longest of real models have some 20,000
SIZES, NO_SIZES = re.compile(r"length|count|size|rank"), re.compile(r"context|window|chunk|max")  # keys of what takes memory; of them, not
BLOCKS = {  # ggml's types that may be in a file: the numbers of a block, and its bytes
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
}


@dataclass(frozen=True)
class GgufFile:
    """A file, or the parts of one in their order; llama.cpp opens the first and finds the others by its name."""

    parts: tuple[GgufHeader, ...]

    @property
    def path(self) -> Path:
        return self.parts[0].path

    @property
    def header(self) -> GgufHeader:
        """Of the first part, which has the keys."""
        return self.parts[0]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return {name: tensor for part in self.parts for name, tensor in part.tensors.items()}


def find(name: str) -> GgufFile:
    """The file that a model's name means, downloaded where it is the hub's; for the bundled model, the one made of its weights.

    Raises LoadError for a name without a GGUF file, and for a file that is incomplete, or claims what can't be.
    """
    path = demo_file.path() if name == DEMO else _path(name)
    try:
        file = GgufFile(tuple(gguf_metadata.parse(part) for part in _parts(name, path)))
    except HeaderError as error:
        raise LoadError(f"{name} {error}") from error
    except OSError as error:
        raise LoadError(f"{name} can't be read: {error.strerror or error}") from error
    _check(name, file)
    return file


def _path(name: str) -> Path:
    source = checkpoint.find(name)
    if source.gguf is None:
        raise LoadError(f"{name} is no GGUF file, and llama.cpp runs no other; run it with --backend transformers")
    folder = Path(source.place)
    return folder / source.gguf if folder.is_dir() else _downloaded(name, source.place, source.gguf)


def _downloaded(name: str, repository: str, file: str) -> Path:
    """A file of the hub, with the other parts of it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        paths = [Path(hf_hub_download(repository, part)) for part in _names(file)]
    except LocalEntryNotFoundError as error:
        raise LoadError(f"{name} {checkpoint.NOT_HERE}") from error
    except EntryNotFoundError as error:
        raise LoadError(f"{repository} on the Hugging Face hub has no file {file}; check the name on its page") from error
    except (HfHubHTTPError, OSError) as error:
        raise LoadError(checkpoint.hub_problem(repository, [error]) or f"{name} can't be downloaded: {words_of(error)}") from error
    return paths[0]


def _names(file: str) -> list[str]:
    """The names of all parts of a file, whichever of them it names."""
    part = PART.fullmatch(file)
    if part is None:
        return [file]
    return [f"{part[1]}-{number:05}-of-{part[3]}{file[-5:]}" for number in range(1, int(part[3]) + 1)]


def _parts(name: str, path: Path) -> list[Path]:
    """All parts of a file. Raises LoadError where one is missing."""
    parts = [path.with_name(part) for part in _names(path.name)]
    absent = [part.name for part in parts if not part.is_file()]
    if absent:
        what = f"{absent[0]}{', ...' if len(absent) > 1 else ''}"
        raise LoadError(f"{name} is one of {len(parts)} parts, and {len(absent)} of them are not beside it ({what}); download them too")
    return parts


# ---- what a header claims ----------------------------------------------------------------------------------------------------


def _check(name: str, file: GgufFile) -> None:
    """Raises LoadError for claims that the file can't hold."""
    claimed = file.header.values.get("split.count", 1)
    if claimed not in (0, len(file.parts)):
        raise LoadError(
            f"{name} is one of {claimed} parts of a file, by its header, and its name is not that of one; rename it: x-00001-of-00003.gguf"
        )
    for part in file.parts:
        _check_tensors(name, part)
    size = sum(part.path.stat().st_size for part in file.parts)
    for what, value in _numbers(file.header):
        if SIZES.search(what) and not NO_SIZES.search(what) and value > PER_BYTE * size:
            raise LoadError(f"{name} claims {what} = {value:,}, and it has {size:,} bytes; its header is wrong")
    _check_shape(name, file)
    if "tokenizer.ggml.tokens" in file.header.repeating:
        raise LoadError(f"{name} has a token twice in its vocabulary; its header is wrong")
    longest = max((len(str(value)) for key, value in file.header.values.items() if key.startswith("tokenizer.chat_template")), default=0)
    if longest > LONGEST_TEMPLATE:
        raise LoadError(f"{name} has a chat template of {longest:,} characters; {LONGEST_TEMPLATE:,} are the most that mav reads")


def _check_shape(name: str, file: GgufFile) -> None:
    """Raises LoadError without an architecture, and for numbers of layers, heads and columns that no model has."""
    head = file.header
    if not isinstance(head.values.get("general.architecture"), str):
        raise LoadError(f"{name} names no architecture; its header is damaged")
    layers = head.own.get("block_count")
    if not isinstance(layers, int) or not 1 <= layers <= min(MOST_LAYERS, len(file.tensors)):
        raise LoadError(f"{name} claims {str(layers)[:20]} layers, and it has {len(file.tensors)} tensors; its header is wrong")
    for key, value in head.own.items():
        if isinstance(value, float) and (not math.isfinite(value) or (value < 0 and "epsilon" in key)):
            raise LoadError(f"{name} says {key} = {value}, which can't be computed with; its header is wrong")
    for key in ("embedding_length", "attention.head_count"):
        value = head.own.get(key)
        if value is not None and any(not isinstance(one, int) or one < 0 for one in (value if isinstance(value, list) else [value])):
            raise LoadError(f"{name} says {key} = {str(value)[:20]}, which is no number of them; its header is wrong")


def _numbers(header: GgufHeader) -> Iterator[tuple[str, int]]:
    """The whole numbers of the architecture, each with its key; the largest of those that differ by layer."""
    for key, value in header.own.items():
        numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
        if numbers:
            yield key, max(numbers, key=abs)


def _check_tensors(name: str, part: GgufHeader) -> None:
    """Raises LoadError where a tensor reaches beyond the file. A type that is not known here is left to llama.cpp, which checks it."""
    size = part.path.stat().st_size
    end = max((tensor.offset + _bytes(tensor) for tensor in part.tensors.values()), default=0)
    if end > size:
        what = f"its weights reach to byte {end:,}, and it has {size:,}"
        raise LoadError(f"{name} is cut off or damaged: {what}; download it again")


def _bytes(tensor: Tensor) -> int:
    numbers, width = BLOCKS.get(tensor.kind, (1, 0))
    row, rows = (tensor.shape[-1], math.prod(tensor.shape[:-1])) if tensor.shape else (1, 1)
    return -(-row // numbers) * width * rows


def context_limit(header: GgufHeader, trained: int) -> tuple[int, tuple[str, ...]]:
    """The most tokens that a context may hold, of those that the model was trained for; and a note where that is fewer.

    With long and short rotary factors llama.cpp takes those that fit the size of the context, and a context here grows with its text.
    """
    original = header.own.get("rope.scaling.original_context_length")
    if not isinstance(original, int) or not MOST <= original < trained:
        return trained, ()  # below MOST every context is longer
    if not any("rope_factors_long" in name for name in header.tensors):
        return trained, ()
    limit = original - original % MOST
    note = f"llama.cpp would take other rotary factors beyond {original} tokens for the whole text: it holds {limit}"
    return limit, (f"{note}; --backend transformers holds {trained}",)
