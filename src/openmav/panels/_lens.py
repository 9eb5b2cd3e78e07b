"""What both panels of the logit lens read from a step: each layer's tokens, and where the final answer appears and stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openmav.paint import visible
from openmav.record import Array, Ids, Step

MEASURE = "logit_lens"
FIRST, STAYS, HOLDS, AGAIN = "◇", "◆", "│", "◦"  # marks of a layer whose top token is the final answer


class Lens(NamedTuple):
    """One step's lens. `answer` is the top token of the last layer that has one, -1 for none; layers are -1 where there is none."""

    probs: Array  # [layers, k], most likely first
    ids: Ids  # [layers, k], -1 for none
    answer: int
    appears: int  # the first layer whose top token is the answer
    stays: int  # the first layer from which on every layer's is


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
    stays = int(known[other[-1] + 1]) if len(other) else int(known[0])
    return Lens(probs, ids, answer, int(known[np.argmax(same)]), stays)


def mark(lens: Lens, layer: int) -> str:
    """◇ where the answer appears for the first time, ◆ from where it stays, │ above that, ◦ where it is on top in between."""
    if lens.answer < 0 or int(lens.ids[layer, 0]) != lens.answer:
        return " "
    if layer >= lens.stays:
        return STAYS if layer == lens.stays else HOLDS
    return FIRST if layer == lens.appears else AGAIN


def piece(step: Step, token_id: int) -> str:
    """The text of a token of the lens, every character visible; its number where the text is not known."""
    if token_id < 0:
        return ""
    text = step.pieces.get(token_id)
    return f"#{token_id}" if text is None else visible(text)


def said(step: Step, lens: Lens, short: bool = False) -> str:
    """Where the final answer appears and stays, in words, or in marks where it must be short; "" for none."""
    if lens.answer < 0:
        return ""
    if short:
        return f"{STAYS} {lens.stays}" if lens.appears == lens.stays else f"{FIRST} {lens.appears} {STAYS} {lens.stays}"
    name = piece(step, lens.answer)
    if lens.appears == lens.stays:
        return f"{name} stays from layer {lens.stays}"
    return f"{name} first at layer {lens.appears}, stays from layer {lens.stays}"
