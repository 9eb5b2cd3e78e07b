"""Input attribution: which tokens the prediction of a token depends on, tinted in the text and listed with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

import numpy as np
from rich.segment import Segment
from rich.style import Style

from openmav.explained import InputAttribution
from openmav.paint import Line, cells, fit, ink, number_text, one_line, percent, printable, visible
from openmav.panels._diverging import diverging_bar, signed, signed_shares
from openmav.panels._grid import fitting
from openmav.panels._view import View
from openmav.panels._wrap import Glyph, wrap

TITLE = "Input attribution"
NEEDS = ()
WEIGHT = 1.6
HELP = """\
What it shows: the text that the model had read, each token tinted by what it has to do with one prediction: orange speaks
for it, blue against it. Below stand the strongest tokens with their numbers, in logits. It is computed when you ask: the
key i asks for the token under the cursor, or for the selected candidate (A); i again takes the next method. I asks why the
token that was chosen, and not the selected candidate (A minus B).

How to read it: three methods answer three questions. gradient: how would the logit move if the token's embedding grew a
little? Fast, and blind to what is saturated. integrated: how does the logit divide over the tokens, on the way from a text
of reference tokens to this one? The scores sum to that difference; the lower edge says by how much they miss it. occlusion:
by how much does the logit fall if the reference token stands in this token's place? The most direct, token by token.
Without colour, bold and reversed speak for it, underlined against it.

Formula: f = the raw logit of A, or A's minus B's. gradient: e . df/de at the token's embedding e. integrated: the same,
with (e - e0) in the place of e and df/de averaged over the straight way from e0, the reference. occlusion: f(text) - f(text
with the reference token there). The reference is the model's own token for padding, unknown text, or the end.

Source: Simonyan et al. (2013); Sundararajan et al., "Axiomatic Attribution for Deep Networks" (2017), by captum; Zeiler and
Fergus (2013). docs/attribution.md says what each can't tell.

What is normal: a few tokens with most of the score, among them the last and the first. The methods differ; what all three
agree on is worth believing. A mixture of experts leaps where it chooses others: integrated gradients then miss their sum.
"""
NAMES = {"gradient": "gradient × input", "integrated": "integrated gradients", "occlusion": "occlusion"}
DECIMALS = 2
NUMBER = 8
ASK = (
    "Nothing was asked yet.",
    "i  which tokens the shown one depends on; again: the next method",
    "I  why it, and not the selected candidate (up and down keys)",
)


def title_of(found: InputAttribution) -> str:
    """Tokens A and B, as in "·Paris minus ·London"."""
    return visible(found.target) + (f" minus {visible(found.minus)}" if found.minus is not None else "")


def heading(view: View, width: int) -> str:
    found = view.attribution
    if found is None:
        return TITLE
    to = title_of(found)
    return fitting([f"Input attribution to {to} · {NAMES[found.method]}, logits", f"{to} · {NAMES[found.method]}", to, TITLE], width)


def elsewhere(view: View, found: InputAttribution) -> str:
    """What the result belongs to, where that is not the token under the cursor; "" where it is."""
    step = view.step
    if step is None or (step.index == found.index and _read(view)[: found.position] == found.token_ids):
        return ""
    if _read(view)[: found.position] != found.token_ids:
        return "of another text than the shown one; i asks anew"
    return f"of token {found.index}, not of the shown one ({step.index}); i asks for that"


def _read(view: View) -> tuple[int, ...]:
    """Prompt and generated tokens."""
    return (*(view.prompt.token_ids if view.prompt else ()), *(step.token_id for step in view.steps))


def note(view: View, width: int, height: int) -> str:
    found = view.attribution
    return "" if found is None else " · ".join(said(found))


def said(found: InputAttribution) -> list[str]:
    """The sums, and what a reader must know of them, in parts."""
    parts = [f"sum {number_text(found.sum, DECIMALS)}"]
    if math.isnan(found.total):
        what = "f" if found.minus is None else "the difference"
        parts[0] += f", {what} is {number_text(found.output, DECIMALS)}"
    else:
        parts[0] += f" of {number_text(found.total, DECIMALS)}"
        parts.append(f"{'off' if found.complete else 'INCOMPLETE: off'} by {percent(found.error).strip()}")
    if found.reference is not None:
        parts.append(f"reference {visible(found.reference)}")
    if found.drift > found.drift_limit:
        parts.append(f"its logits are off by {percent(found.drift).strip()}")
    if found.untouched:
        parts.append("of the untouched model")
    return parts


def render(view: View, width: int, height: int) -> list[Line]:
    found = view.attribution
    if found is None:
        return [[Segment(fit(row, width).rstrip(), ink(view.palette, "text" if not at else "secondary"))] for at, row in enumerate(ASK)][
            : max(0, height)
        ]
    shares, lines = signed_shares(found.scores), []
    where = elsewhere(view, found)
    if where:
        lines.append([Segment(fit(one_line(where), width).rstrip(), ink(view.palette, "warning"))])
    text = _text(view, found, shares, width)
    listed = min(len(found.scores), max(0, height - len(lines) - len(text) - 1), 16)
    if listed < min(3, len(found.scores)):  # a long text: its end, and a few rows of numbers
        listed = min(len(found.scores), 6, max(0, (height - len(lines)) // 2))
    room = height - len(lines) - listed - bool(listed)
    lines += text[-room:] if room > 0 else []
    lines += ([[]] if listed else []) + _strongest(view, found, shares, width, listed)
    return lines[: max(0, height)]


def _text(view: View, found: InputAttribution, shares: np.ndarray, width: int) -> list[Line]:
    rows = wrap(((printable(text), at) for at, text in enumerate(found.tokens)), width)
    return [[_run(view, shares, token, run) for token, run in groupby(row, lambda glyph: glyph.token)] for row in rows]


def _run(view: View, shares: np.ndarray, token: int, run: Iterable[Glyph]) -> Segment:
    return Segment("".join(glyph.text for glyph in run), _style(view, float(shares[token])))


def _style(view: View, share: float) -> Style:
    """Blue over quiet to orange; the text turns dark on a strong tint. Without colour: underlined, plain, bold, reversed."""
    palette = view.palette
    if not palette.color:
        strong = abs(share) >= 0.5
        return ink(palette, "text", "text" if share > 0 and strong else "", bold=share >= 0.2, underline=share <= -0.2)
    middle = len(palette.diverging) // 2
    level = round(share * middle)
    if level == 0:
        return ink(palette, "text")
    strong = abs(level) > middle // 2
    return ink(palette, ("#000000" if palette.dark else "text") if strong else "text", palette.diverging[middle + level])


def _strongest(view: View, found: InputAttribution, shares: np.ndarray, width: int, count: int) -> list[Line]:
    """A row for each of the tokens with the largest scores: position, token, bar around 0, number."""
    order = np.argsort(-np.abs(np.nan_to_num(found.scores, nan=np.inf)), kind="stable")[:count]
    names = [visible(found.tokens[at]) for at in order]
    place = len(str(max(len(found.scores) - 1, 0)))
    name = min(max((cells(text) for text in names), default=0), max(4, width // 4))
    bars = max(0, width - place - name - NUMBER - 3)
    lines: list[Line] = []
    for at, text in zip(order, names):
        value = float(found.scores[at])
        bar = diverging_bar(view.palette, float(shares[at]), bars, view.options.max_bar_length) if bars >= 5 else []
        role = "text" if math.isfinite(value) else "warning"
        line = [Segment(f"{at:>{place}} ", ink(view.palette, "secondary")), Segment(fit(text, name) + " ", ink(view.palette, "text"))]
        lines.append([*line, *bar, Segment(signed(value, DECIMALS).rjust(NUMBER), ink(view.palette, role))])
    return lines
