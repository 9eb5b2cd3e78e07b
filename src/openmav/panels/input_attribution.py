"""Input attribution: which tokens the prediction of a token depends on, tinted in the text and listed with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, cells, fit, ink, number_text, percent, printable, visible, wrap_words
from openmav.paint.wrap import Glyph, wrap
from openmav.panels.base import Box
from openmav.panels.widgets.diverging import diverging_bar, signed, signed_shares
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.sequence import token_at
from openmav.record import Array
from openmav.record.attribution_result import InputAttribution
from openmav.view import View

TITLE = "Input attribution"
NEEDS = ()
WEIGHT = 1.6
HELP = """\
What it shows: the text that the model had read, each token tinted by its contribution to one prediction: orange raises
its logit, blue lowers it. Below are the strongest tokens with their numbers, in logits. It is computed on request: the
key i attributes the token under the cursor, or the selected candidate (A); i again switches to the next method. I asks why
the token that was chosen, and not the selected candidate (A minus B).

How to read it: three methods answer three questions. gradient: how would the logit move if the token's embedding grew a
little? Fast, and blind to what is saturated. integrated: how is the logit distributed over the tokens, along the path from a text
of reference tokens to this one? The scores sum to that difference; the lower edge says by how much they miss it. occlusion:
by how much does the logit fall if the reference token replaces this token? The most direct, token by token.
Without colour, bold and reversed raise the logit, underlined lowers it.

Formula: f = the raw logit of A, or A's minus B's. gradient: e . df/de at the token's embedding e. integrated: the same,
with (e - e0) in the place of e and df/de averaged over the straight path from e0, the reference. occlusion: f(text) - f(text
with the reference token there). The reference is the model's own token for padding, unknown text, or the end.

Source: Simonyan et al. (2013); Sundararajan et al., "Axiomatic Attribution for Deep Networks" (2017); Zeiler and
Fergus (2013). docs/attribution.md says what each can't tell.

What is normal: a few tokens with most of the score, among them the last and the first. The methods differ; what all three
agree on is worth believing. A mixture of experts leaps where it chooses others: integrated gradients then miss their sum.
"""
NAMES = {"gradient": "gradient × input", "integrated": "integrated gradients", "occlusion": "occlusion"}
DECIMALS = 2
NUMBER = 8
ASK = (
    "Nothing was asked yet.",
    "i: which tokens the shown one depends on; again: the next method",
    "I: why it, and not the selected candidate (up and down keys)",
)


@dataclass(frozen=True)
class Scores:
    """One result, in logits: a score for each token that the model had read."""

    method: str  # one of NAMES
    target: str  # token A, or "A minus B"
    texts: tuple[str, ...]  # [tokens], as they read in the text
    tokens: tuple[str, ...]  # [tokens], every character visible
    scores: Array  # [tokens]
    notes: tuple[str, ...]  # the sums, and what a reader must know of them


@dataclass(frozen=True)
class InputAttributionData:
    result: Scores | None  # None: none was requested yet
    elsewhere: str  # what the result belongs to, where that is not the token under the cursor; "" where it is


def data(view: View) -> InputAttributionData:
    result = view.attribution
    if result is None:
        return InputAttributionData(None, "")
    where = elsewhere(view, result)
    minus = f" minus {visible(result.minus)}" if result.minus is not None else ""
    scores = Scores(
        method=result.method,
        target=visible(result.target) + minus,
        texts=tuple(printable(token) for token in result.tokens),
        tokens=tuple(visible(token) if token or where else token_at(view, at) for at, token in enumerate(result.tokens)),
        scores=result.scores,
        notes=tuple(notes_of(result)),
    )
    return InputAttributionData(scores, where)


def elsewhere(view: View, result: InputAttribution) -> str:
    """What the result belongs to, where that is not the token under the cursor; "" where it is."""
    step = view.step
    if step is None:
        return ""
    is_same = _read(view)[: result.position] == result.token_ids
    if step.index == result.index and is_same:
        return ""
    if not is_same:
        return "of another text than the shown one; i asks anew"
    return f"of token {result.index}, not of the shown one ({step.index}); i asks for that"


def _read(view: View) -> tuple[int, ...]:
    """Prompt and generated tokens."""
    return (*(view.prompt.token_ids if view.prompt else ()), *(step.token_id for step in view.steps))


def notes_of(result: InputAttribution) -> list[str]:
    """The sums, and what a reader must know of them, in parts."""
    parts = [f"sum {number_text(result.sum, DECIMALS)}"]
    if math.isnan(result.total):
        parts[0] += f", {'logit' if result.minus is None else 'difference'} {number_text(result.output, DECIMALS)}"
    else:
        parts[0] += f" of {number_text(result.total, DECIMALS)}"
        parts.append(f"{'off' if result.complete else 'INCOMPLETE: off'} by {percent(result.error).strip()}")
    if result.reference is not None:
        parts.append(f"reference {visible(result.reference)}")
    if result.drift > result.drift_limit:
        parts.append(f"its logits are off by {percent(result.drift).strip()}")
    if result.of_baseline:
        parts.append("of the baseline model")
    return parts


def heading(data: InputAttributionData, box: Box) -> str:
    if data.result is None:
        return TITLE
    to, method = data.result.target, NAMES[data.result.method]
    return fitting([f"Input attribution to {to} · {method}, logits", f"{to} · {method}", to, TITLE], box.width)


def note(data: InputAttributionData, box: Box) -> str:
    return "" if data.result is None else " · ".join(data.result.notes)


def render(data: InputAttributionData, box: Box) -> list[Line]:
    result, width, height = data.result, box.width, box.height
    if result is None:
        rows = [(row, "secondary" if at else "text") for at, text in enumerate(ASK) for row in wrap_words(text, max(width, 1))]
        return [[Segment(row, ink(box.palette, role))] for row, role in rows[: max(0, height)]]
    shares, lines = signed_shares(result.scores), []
    if data.elsewhere:
        lines.append([Segment(fit(data.elsewhere, width).rstrip(), ink(box.palette, "warning"))])
    text = _text(box, result, shares)
    listed = min(len(result.scores), max(0, height - len(lines) - len(text) - 1), 16)
    if listed < min(3, len(result.scores)):  # a long text: its end, and a few rows of numbers
        listed = min(len(result.scores), 6, max(0, (height - len(lines)) // 2))
    room = height - len(lines) - listed - bool(listed)
    lines += text[-room:] if room > 0 else []
    lines += ([[]] if listed else []) + _strongest(box, result, shares, listed)
    return lines[: max(0, height)]


def _text(box: Box, result: Scores, shares: np.ndarray) -> list[Line]:
    rows = wrap(((text, at) for at, text in enumerate(result.texts)), box.width)
    return [[_run(box, shares, token, run) for token, run in groupby(row, lambda glyph: glyph.token)] for row in rows]


def _run(box: Box, shares: np.ndarray, token: int, run: Iterable[Glyph]) -> Segment:
    return Segment("".join(glyph.text for glyph in run), _style(box, float(shares[token])))


def _style(box: Box, share: float) -> Style:
    """Blue over quiet to orange; the text turns dark on a strong tint. Without colour: underlined, plain, bold, reversed."""
    palette = box.palette
    if not palette.color:
        strong = abs(share) >= 0.5
        return ink(palette, "text", "text" if share > 0 and strong else "", bold=share >= 0.2, underline=share <= -0.2)
    middle = len(palette.diverging) // 2
    level = round(share * middle)
    if level == 0:
        return ink(palette, "text")
    strong = abs(level) > middle // 2
    return ink(palette, ("#000000" if palette.dark else "text") if strong else "text", palette.diverging[middle + level])


def _strongest(box: Box, result: Scores, shares: np.ndarray, count: int) -> list[Line]:
    """A row for each of the tokens with the largest scores: position, token, bar around 0, number."""
    order = np.argsort(-np.abs(np.nan_to_num(result.scores, nan=np.inf)), kind="stable")[:count]
    names = [result.tokens[at] for at in order]
    place = len(str(max(len(result.scores) - 1, 0)))
    name = min(max((cells(text) for text in names), default=0), max(4, box.width // 4))
    bars = max(0, box.width - place - name - NUMBER - 3)
    lines: list[Line] = []
    for at, text in zip(order, names):
        value = float(result.scores[at])
        bar = diverging_bar(box.palette, float(shares[at]), bars, box.max_bar_length) if bars >= 5 else []
        role = "text" if math.isfinite(value) else "warning"
        line = [Segment(f"{at:>{place}} ", ink(box.palette, "secondary")), Segment(fit(text, name) + " ", ink(box.palette, "text"))]
        lines.append([*line, *bar, Segment(signed(value, DECIMALS).rjust(NUMBER), ink(box.palette, role))])
    return lines
