"""A GGUF file in mav's session on llama.cpp, with everything captured: against bare llama.cpp, and against transformers' generate()."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from common import DEMO, REAL_MODEL, Counts, Figure, Model, Section, median, note, ratio, spread, take_turns
from decoding import Bare, Watched
from openmav.backends.base import Frame, LoadOptions, Progress
from openmav.backends.loading.checkpoint import DEMO_FOLDER

TITLE = "Speed kept on llama.cpp"
REAL_FILE = REAL_MODEL.with_name(f"{REAL_MODEL.name}.Q4_1.gguf")
KEEPS, FASTER = 0.85, 4.0  # of bare llama.cpp's speed; times generate()'s
ROUNDS, GENERATED = 9, 9  # at most; tokens that generate() makes, which takes far longer for each
HOW = (
    "One process, greedy, end of text switched off on all sides. Bare llama.cpp decodes and takes the most likely token in numpy, through"
    " llama-cpp-python's functions, without a callback: the same weights in memory, threads, cache of float16 and no flash attention. "
    "generate() runs the float32 weights. mav's session captures and freezes everything that the default measures need. Each has read the"
    " same prompt before and makes {tokens} tokens after it, generate() {generated}; the time of a token is that of those after the "
    "first. Sides and contexts take turns, {rounds} rounds; a ratio is the median over the rounds, with the range of all rounds beside "
    "it."
)


class BareLlama:
    """llama.cpp's own decoding of a file, for one prompt: it is read once, and each round goes back to its last token."""

    def __init__(self, weights: Any, size: int) -> None:
        """`weights`: as mav has loaded them."""
        self.llama = llama = weights.native.llama
        self.model = weights.handle
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = size, size, 512
        params.n_threads = params.n_threads_batch = os.cpu_count() or 1
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context: Any = llama.llama_init_from_model(self.model, params)
        self.vocab = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model)))
        self.ids: list[int] = []
        self.read = 0  # tokens of the prompt that the cache holds

    def _next(self, ids: tuple[int, ...]) -> int:
        import numpy as np

        row = (self.llama.llama_token * len(ids))(*ids)
        assert self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(row, len(ids))) == 0
        logits = np.ctypeslib.as_array(self.llama.llama_get_logits_ith(self.context, -1), shape=(self.vocab,))
        return int(logits.argmax())

    def seconds_per_token(self, prompt: tuple[int, ...], tokens: int) -> float:
        if not self.read:
            self.read = len(prompt) - 1
            self._next(prompt[:-1])
        self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.context), 0, self.read, -1)
        self.ids = [self._next(prompt[-1:])]
        began = time.perf_counter()
        while len(self.ids) < tokens:
            self.ids.append(self._next((self.ids[-1],)))
        return (time.perf_counter() - began) / (tokens - 1)


class Continued(Bare):
    """generate() with the cache of a prompt that was read before."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.caches: dict[tuple[int, ...], Any] = {}

    def more(self, prompt: tuple[int, ...]) -> dict[str, Any]:
        cache = self.caches.get(prompt)
        if cache is None:
            cache = self.caches[prompt] = DynamicCache(config=self.model.config)
            with torch.no_grad():
                self.model(torch.tensor([prompt[:-1]]), past_key_values=cache)
        more = cache.get_seq_length() - (len(prompt) - 1)
        if more:
            cache.crop(-more)
        return {"past_key_values": cache}


class Prepared:
    """mav's backend, which goes back to the last token of a prompt that it has read; bit for bit what reading it again gives."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.prompt: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        if list(ids) != self.prompt:
            self.prompt = list(ids)
            return self.backend.prefill(ids, want, progress)  # type: ignore[no-any-return]
        self.backend.rewind(len(ids) - 1)
        return self.backend.decode_one_token(ids[-1], want)  # type: ignore[no-any-return]


def run(counts: Counts) -> list[Section]:
    figures: list[Figure] = []
    if importlib.util.find_spec("llama_cpp") is None:
        return [Section(TITLE, "Not measured.", [Figure("llama.cpp is not installed: make llamacpp", "", None)])]
    for model in counts.models:
        file = _file(model)
        if not file.is_file():
            figures.append(Figure(f"{model.title}: {file.name} is not there, run make real-model", "", None))
            continue
        note(f"native: {model.title}")
        found, same = _measure(model, file, counts)
        for context in counts.contexts:
            figures += _figures(model, context, found, same[context])
    how = HOW.format(tokens=counts.tokens, generated=min(GENERATED, counts.tokens), rounds=min(ROUNDS, counts.rounds))
    return [Section(TITLE, how, figures)]


def _file(model: Model) -> Path:
    if model is not DEMO:
        return REAL_FILE
    from openmav.backends.llamacpp import demo_file

    return demo_file.path()


def _measure(model: Model, file: Path, counts: Counts) -> tuple[dict[str, list[float]], dict[int, bool]]:
    """{"mav 16": seconds per token of each round, "llama.cpp 16": ..., "generate 16": ...}, and whether mav and llama.cpp made the same."""
    from openmav.backends.llamacpp import load

    generate = Continued(DEMO_FOLDER if model is DEMO else REAL_MODEL)
    sides: dict[str, Callable[[], float]] = {}
    same = {}
    for context in counts.contexts:
        ours: Any = Prepared(load(str(file), LoadOptions()))  # first: it keeps llama.cpp's log from the screen
        ours.backend.end_ids = frozenset()
        bare = BareLlama(ours.backend.weights, context + counts.tokens + 64)
        side = Watched(ours, model.name, context)
        sides[f"generate {context}"] = partial(generate.seconds_per_token, side.prompt, min(GENERATED, counts.tokens))
        sides[f"llama.cpp {context}"] = partial(bare.seconds_per_token, side.prompt, counts.tokens)
        sides[f"mav {context}"] = partial(side.seconds_per_token, counts.tokens)
        for name in ("generate", "llama.cpp", "mav"):  # warms up
            sides[f"{name} {context}"]()
        same[context] = side.ids == bare.ids
    return take_turns(min(ROUNDS, counts.rounds), sides), same


def _figures(model: Model, context: int, found: dict[str, list[float]], same: bool) -> list[Figure]:
    ours, bare, generate = (found[f"{name} {context}"] for name in ("mav", "llama.cpp", "generate"))
    title = f"{model.title}, context {context}"
    measured = f"mav {1 / median(ours):.1f} tok/s, llama.cpp {1 / median(bare):.1f} tok/s, ratio {_range(bare, ours)}"
    times = f"generate() {1 / median(generate):.1f} tok/s on {torch.get_num_threads()} threads, ratio {_range(generate, ours)}"
    least = (None, None) if model is DEMO else (KEEPS, FASTER)
    return [
        Figure(title, measured + ("" if same else ", TOKENS DIFFER"), ratio(bare, ours), least=least[0]),
        Figure(f"{title}, against generate()", times, ratio(generate, ours), least=least[1]),
    ]


def _range(above: list[float], below: list[float]) -> str:
    return spread([a / b for a, b in zip(above, below, strict=True)])
