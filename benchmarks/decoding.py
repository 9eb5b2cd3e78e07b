"""Bare `model.generate()` against a session that captures everything the seven first panels show; and a token's cost as the text grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

from common import REAL_MODEL, Counts, Figure, Model, Section, median, note, ratio, spread, take_turns
from openmav.backends.base import LoadOptions
from openmav.backends.loading.checkpoint import DEMO_FOLDER
from openmav.backends.transformers import backend
from openmav.generation.session import Session
from openmav.settings import DEMO, Settings

PASSAGE = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune must be in want of a wife. "
    "However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so "
    "well fixed in the minds of the surrounding families, that he is considered as the rightful property of some one or other "
    "of their daughters. "
)
GROWTH = 1.25  # a token at the largest context against one at the smallest, at most
HOW = (
    "One process, torch's own number of threads, float32, greedy, end of text switched off on both sides. generate() has a model of "
    "its own with SDPA and a stock cache; mav's session captures and freezes everything that the default measures need, in bursts of "
    "30 ms (Session.burst), as the app and the streams of tokens do. Both read the same prompt and make the same {tokens} tokens; the "
    "time is that of the tokens after the first, so the prompt is in neither. Sides and contexts take turns, {rounds} rounds; a ratio "
    "is the median over the rounds, with the range of all rounds beside it."
)


class Stamps(LogitsProcessor):
    """Changes nothing; notes when each token's logits are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores


class Bare:
    """transformers' generate, as a user would call it."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.model.generation_config.eos_token_id = None
        self.ids: list[int] = []

    def more(self, prompt: tuple[int, ...]) -> dict[str, Any]:
        """More arguments of generate()."""
        return {}

    def seconds_per_token(self, prompt: tuple[int, ...], tokens: int) -> float:
        stamps = Stamps()
        row = torch.tensor([prompt])
        made = self.model.generate(
            row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([stamps]),
            **self.more(prompt),
        )
        self.ids = made[0, len(prompt) :].tolist()
        return (stamps.times[-1] - stamps.times[0]) / (tokens - 1)


class Watched:
    """mav's session with the default measures, a new one each round; those of several contexts share one backend."""

    def __init__(self, model: backend.TransformersBackend, name: str, context: int) -> None:
        self.model = model
        ids = model.encode(PASSAGE * (1 + context // 40))[:context]
        self.settings = Settings(model=name, prompt=model.decode(ids), max_new_tokens=1 << 20)
        self.prompt = tuple(model.encode(self.settings.text))
        self.ids: list[int] = []

    def seconds_per_token(self, tokens: int) -> float:
        session = Session(self.model, self.settings)
        session.prefill()
        session.step()
        began = time.perf_counter()
        while len(session.steps) < tokens:
            session.burst(most=tokens - len(session.steps))
        seconds = time.perf_counter() - began
        self.ids = [step.token_id for step in session.steps]
        return seconds / (tokens - 1)


def run(counts: Counts) -> list[Section]:
    figures: list[Figure] = []
    growth: list[Figure] = []
    for model in counts.models:
        if model.name == str(REAL_MODEL) and not REAL_MODEL.is_dir():
            figures.append(Figure(f"{model.title}: not there, run make real-model", "", None))
            continue
        note(f"decoding: {model.title}")
        found, same = _measure(model, counts)
        figures += [_speed(model, context, found, same[context]) for context in counts.contexts]
        growth += _growth(model, counts.contexts, found)
    how = HOW.format(tokens=counts.tokens, rounds=counts.rounds)
    return [
        Section("Speed kept with everything captured", how, figures),
        Section("A token's cost as the text grows", "From the same rounds: mav's session only.", growth),
    ]


def _measure(model: Model, counts: Counts) -> tuple[dict[str, list[float]], dict[int, bool]]:
    """{"mav 16": seconds per token of each round, "generate 16": ...}, and for each context whether both made the same tokens."""
    bare = Bare(DEMO_FOLDER if model.name == DEMO else Path(model.name))
    ours = backend.load(model.name, LoadOptions(dtype="float32", device="cpu"))
    ours.end_ids = frozenset()
    watched = {context: Watched(ours, model.name, context) for context in counts.contexts}
    sides: dict[str, Callable[[], float]] = {}
    for context, side in watched.items():
        sides[f"generate {context}"] = partial(bare.seconds_per_token, side.prompt, counts.tokens)
        sides[f"mav {context}"] = partial(side.seconds_per_token, counts.tokens)
    same = {}
    for context, side in watched.items():  # warms up, and shows that both do the same work
        sides[f"generate {context}"]()
        sides[f"mav {context}"]()
        same[context] = side.ids == bare.ids
    return take_turns(counts.rounds, sides), same


def _speed(model: Model, context: int, found: dict[str, list[float]], same: bool) -> Figure:
    ours, bare = found[f"mav {context}"], found[f"generate {context}"]
    shares = [b / o for b, o in zip(bare, ours, strict=True)]
    measured = f"mav {1 / median(ours):.1f} tok/s, generate() {1 / median(bare):.1f} tok/s, ratio {spread(shares)}"
    measured += "" if same else ", TOKENS DIFFER"
    return Figure(f"{model.title}, context {context}", measured, ratio(bare, ours), least=model.keeps[context])


def _growth(model: Model, contexts: tuple[int, ...], found: dict[str, list[float]]) -> list[Figure]:
    first = contexts[0]
    figures = []
    for context in contexts[1:]:
        ours, base = found[f"mav {context}"], found[f"mav {first}"]
        bare, bare_base = found[f"generate {context}"], found[f"generate {first}"]
        measured = f"{1000 * median(ours):.2f} ms against {1000 * median(base):.2f} ms, generate() ratio {ratio(bare, bare_base):.2f}"
        most = GROWTH if context == contexts[-1] else None
        figures.append(Figure(f"{model.title}, context {context} against {first}", measured, ratio(ours, base), most=most))
    return figures
