"""Random changes of a sound model's files, the same for the same number: attack `n` is made by the seed `n`."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks import gguf_files
from attacks.base import Attack
from attacks.folders import ODD
from attacks.models import RUN, sound

FILES = ("config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "gguf")
COUNT = 2000


def attacks(first: int = 0, count: int = COUNT) -> Iterator[Attack]:
    for number in range(first, first + count):
        what = FILES[number % len(FILES)]
        if what == "gguf":
            yield Attack(f"fuzz {number}: gguf", gguf_files.RUN, lambda folder, n=number: _write_gguf(folder, n))  # type: ignore[misc]
        else:
            yield Attack(f"fuzz {number}: {what}", RUN, lambda folder, n=number, w=what: _write_json(folder, w, n))  # type: ignore[misc]


def _write_json(folder: Path, name: str, seed: int) -> None:
    """The sound model with one to three changes in a JSON file, or with a few of its bytes changed."""
    draw, file = random.Random(seed), sound(folder) / name
    text = file.read_text(encoding="utf-8") if file.exists() else "{}"
    if draw.random() < 0.1:
        file.write_bytes(_bytes_changed(text.encode(), draw))
        return
    data = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        data = _changed(data, draw)
    file.write_text(json.dumps(data), encoding="utf-8")


def _changed(data: Any, draw: random.Random) -> Any:
    """A copy in which one value, anywhere, is another one, is gone, stands under another key, or stands twice."""
    data = copy.deepcopy(data)
    places = list(_places(data))
    if not places:
        return draw.choice(ODD)
    holder, key = draw.choice(places)
    how = draw.random()
    if how < 0.6:
        value = draw.choice([*ODD, *(holder[k] for holder, k in draw.sample(places, min(3, len(places))))])
        holder[key] = copy.deepcopy(value)  # it may hold this very place
    elif how < 0.75:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw.choice(["", "type", "id", str(key) + "x", *map(str, holder)])] = holder[key]
    else:
        holder.insert(draw.randrange(len(holder) + 1), holder[key])
    return data


def _places(data: Any, most: int = 400) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of a tree; of a long list or dict, its first entries."""
    waiting = [data]
    while waiting and most:
        holder = waiting.pop(0)
        entries = list(holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ())[:40]
        for key, value in entries:
            most -= 1
            yield holder, key
            if isinstance(value, (dict, list)):
                waiting.append(value)


def _bytes_changed(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed if draw.random() < 0.7 else changed[: draw.randrange(len(changed))])


def _write_gguf(folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    vocabulary = gguf_files.entry("tokenizer.ggml.tokens", gguf_files.ARRAY, gguf_files.TOKENS)
    whole = gguf_files.file([*gguf_files.sizes(), vocabulary], [gguf_files.tensor("token_embd.weight", (32, 3))], data=b"\0" * 384)
    (folder / "m.gguf").write_bytes(_bytes_changed(whole, draw))
