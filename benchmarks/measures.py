"""What each measure beyond the default ones adds to a token, as a ratio to the plain session."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from common import REAL_MODEL, Counts, Figure, Section, median, note, ratio, spread, take_turns
from decoding import PASSAGE
from openmav.backends.base import LoadOptions
from openmav.backends.transformers import backend
from openmav.generation.session import Session
from openmav.plugins import registry
from openmav.settings import CORE_MEASURES, Settings

CONTEXT = 256
HOW = (
    "One process, float32, greedy, context {context}, {tokens} tokens a round, {rounds} rounds in turn with the plain session (the default "
    "measures), on one backend. A ratio is a token with the measure over a token without it, the median over the rounds. A measure that "
    "nobody wants costs nothing: it is not computed."
)


def run(counts: Counts) -> list[Section]:
    figures: list[Figure] = []
    for model in counts.models:
        if model.name == str(REAL_MODEL) and not REAL_MODEL.is_dir():
            continue
        note(f"measures: {model.title}")
        figures += _measure(model.title, model.name, counts)
    how = HOW.format(context=CONTEXT, tokens=counts.tokens, rounds=max(1, counts.rounds // 2))
    return [Section("What each deep measure adds", how, figures)]


def _measure(title: str, name: str, counts: Counts) -> list[Figure]:
    model = backend.load(name, LoadOptions(dtype="float32", device="cpu"))
    model.end_ids = frozenset()
    ids = model.encode(PASSAGE * (1 + CONTEXT // 40))[:CONTEXT]
    plain = Settings(model=name, prompt=model.decode(ids), max_new_tokens=1 << 20)
    deep = [measure for measure in registry.names("measures") if measure not in CORE_MEASURES]
    wanted = {"plain": plain} | {measure: replace(plain, measures=(*CORE_MEASURES, measure)) for measure in deep}
    sides = {side: partial(_seconds_per_token, model, settings, counts.tokens) for side, settings in wanted.items()}
    for side in sides.values():  # warms up: the first use of a deep measure may check the model
        side()
    found = take_turns(max(1, counts.rounds // 2), sides)
    figures = []
    for measure in deep:
        shares = [with_it / without for with_it, without in zip(found[measure], found["plain"], strict=True)]
        measured = f"{1e3 * median(found[measure]):.2f} ms a token, plain {1e3 * median(found['plain']):.2f} ms, ratio {spread(shares)}"
        figures.append(Figure(f"{title}, {measure}", measured, ratio(found[measure], found["plain"])))
    return figures


def _seconds_per_token(model: backend.TransformersBackend, settings: Settings, tokens: int) -> float:
    session = Session(model, settings)
    session.step()
    began = time.perf_counter()
    for _ in range(tokens - 1):
        session.step()
    return (time.perf_counter() - began) / (tokens - 1)
