"""What both panels of the logit lens read from a step: each layer's tokens, and from which layer on the final answer is predicted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openmav.paint import visible
from openmav.record import Array, Ids, Step

MEASURE = "logit_lens"
FIRST, STABLE, ABOVE, AGAIN = "◇", "◆", "│", "◦"  # marks of a layer whose top token is the final answer


class Lens(NamedTuple):
    """One step's lens. `answer` is the top token of the last layer that has one, -1 for none; layers are -1 where there is none."""

    probs: Array  # [layers, k], most likely first
    ids: Ids  # [layers, k], -1 for none
    answer: int
    first: int  # the first layer whose top token is the answer
    stable: int  # the first layer from which on every layer's is


def lens_of(step: Step) -> Lens | None:
    """The lens of a step; None where it was not computed."""
    probs, ids = step.values.get(MEASURE), step.values.get(f"{MEASURE}.token_ids")
    if probs is None or ids is None or ids.size == 0:
        return None
    tops = ids[:, 0]
    known = np.nonzero(tops >= 0)[0]
    if not len(known):
        return Lens(probs, ids, -1, -1, -1)
    answer = int(tops[known[-1]])
    same = tops[known] == answer
    other = np.nonzero(~same)[0]
    stable = int(known[other[-1] + 1]) if len(other) else int(known[0])
    return Lens(probs, ids, answer, int(known[np.argmax(same)]), stable)


def mark(lens: Lens, layer: int) -> str:
    """◇ the first layer that predicts the answer, ◆ the one from which on all do, │ those above, ◦ one in between that does."""
    if lens.answer < 0 or int(lens.ids[layer, 0]) != lens.answer:
        return " "
    if layer >= lens.stable:
        return STABLE if layer == lens.stable else ABOVE
    return FIRST if layer == lens.first else AGAIN


def piece(step: Step, token_id: int) -> str:
    """The text of a token of the lens, every character visible; its id where the text is not known."""
    if token_id < 0:
        return ""
    text = step.pieces.get(token_id)
    return f"#{token_id}" if text is None else visible(text)


def summary(answer: str, first: int, stable: int, short: bool = False) -> str:
    """From which layers on the final answer is predicted; without the answer where it must be short."""
    if short:
        return f"stays from {stable}" if first == stable else f"first {first}, stays from {stable}"
    if first == stable:
        return f"{answer} stays from layer {stable}"
    return f"{answer} first at layer {first}, stays from layer {stable}"
