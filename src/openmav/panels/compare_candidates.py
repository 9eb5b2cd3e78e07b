"""Two predictions: the most likely tokens of A and of B side by side, and where they disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number_text, one_line, percent, probability_axis, probability_shares, visible
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import message, too_narrow, why_no_step
from openmav.panels.widgets.layers_apart import NO_COMPARISON, amount
from openmav.panels.widgets.parts import token_and_bar
from openmav.record import Array
from openmav.record.comparison import COMPARISON, divergence_of, flips
from openmav.view import View

TITLE = "Two predictions"
NEEDS = ()
TOP = True
ROWS = 22  # two headings, and as many tokens as a run keeps
HELP = """\
What it shows: the most likely next tokens in A on the left and in B on the right (below it where it is narrow), most likely
first, each with its probability there and, where there is room, in the other run. ● is the token that A drew, which both then
read; ≠ marks a place of the lists where the two have different tokens. Where the first of them differ, that is a flip, and both
are in amber.

How to read it: a flip at 31 % against 30 % is a tie that rounding can turn; one at 90 % against 2 % is another opinion. The lower edge
has the divergence, and what each run made of the token: its surprisal there, and the entropy of the prediction.

Formula: softmax of the logits of each run at the same position, before any sampling. KL(A‖B) = sum p_A (ln p_A - ln p_B).

Source: the models' own logits.

What is normal: the same order at the top, changes of place further down, where tokens are close to each other.
"""
NAMES = ("token_ids", "probs", "probs_in_a", "probs_in_b", "logprob", "entropy")
GAP, LEAST = 2, 16  # cells between the lists, and of each of them at least
OTHER = 40  # cells of a list from which on it has the probability in the other run
LEAST_LIST = 3  # rows of a list, where they stand one above the other
WITH_COLUMNS = 5  # rows from which on the columns have headings


@dataclass(frozen=True)
class Side:
    """The most likely tokens of one run; arrays are [k]."""

    name: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    probs: Array
    other: Array  # their probabilities in the other run
    surprisal: float  # of the drawn token, nats
    entropy: float  # nats


@dataclass(frozen=True)
class PredictionsData:
    empty: str | None  # why there is nothing to show, "" while the model is not ready; None where there is
    sides: tuple[Side, ...]  # of A and of B
    drawn: int  # the token that A drew
    divergence: float
    flips: bool


def data(view: View) -> PredictionsData:
    step = view.step
    empty = why_no_step(view)
    if step is None or f"{COMPARISON}.probs_in_b" not in step.values:
        return PredictionsData(NO_COMPARISON if empty is None else empty, (), -1, math.nan, False)
    values, mine = {name: step.values[f"{COMPARISON}.{name}"] for name in NAMES}, step.candidates
    info, facts = view.info, view.comparison
    a = f"{info.name} · {info.dtype} on {info.device}" if info is not None else ""
    ids = tuple(values["token_ids"].tolist())
    tokens = tuple(visible(token) for token in mine.tokens)
    theirs = tuple(visible(step.pieces.get(token_id, "?")) for token_id in ids)
    return PredictionsData(
        empty=None,
        sides=(
            Side(one_line(a), tokens, tuple(mine.token_ids.tolist()), mine.probs, values["probs_in_b"], step.surprisal, step.entropy),
            Side(
                one_line(facts.b) if facts is not None else "",
                theirs,
                ids,
                values["probs"],
                values["probs_in_a"],
                -float(values["logprob"].ravel()[0]),
                float(values["entropy"].ravel()[0]),
            ),
        ),
        drawn=step.token_id,
        divergence=divergence_of(step) or 0.0,
        flips=flips(step),
    )


def note(data: PredictionsData, box: Box) -> str:
    if data.empty is not None:
        return ""
    both = [" ".join(number_text(getattr(side, name), 2) for side in data.sides) for name in ("surprisal", "entropy")]
    parts = [f"KL {amount(data.divergence)} nats", *(["flip"] if data.flips else []), f"surprisal A, B {both[0]}", f"entropy {both[1]}"]
    return " · ".join(parts)


def _own(name: str, other: str) -> str:
    """What of a run's name the other's does not have; all of it where that is nothing."""
    parts = [part for part in name.split(" · ") if part not in other.split(" · ")]
    return " · ".join(parts) or name


def render(data: PredictionsData, box: Box) -> list[Line]:
    if data.empty is not None:
        return message(box, data.empty)
    width = (box.width - GAP) // 2
    if width < LEAST:
        if box.width < LEAST or box.height < 2 * LEAST_LIST:
            return too_narrow(box)
        high = box.height // 2
        return [*_side(data, 0, replace(box, height=high), box.width), *_side(data, 1, replace(box, height=box.height - high), box.width)]
    lists = [_side(data, at, box, width) for at in (0, 1)]
    return [[*left, Segment(" " * GAP), *right] for left, right in zip(*lists)]


def _side(data: PredictionsData, at: int, box: Box, width: int) -> list[Line]:
    """`box.height` lines of `width` cells."""
    side, beside = data.sides[at], data.sides[1 - at]
    quiet, palette = ink(box.palette, "secondary"), box.palette
    other = 8 if width >= OTHER else 0
    token, longest = token_and_bar(box, width - 2 - 8 - other)
    head = f"{'AB'[at]}  {fitting([side.name, _own(side.name, beside.name)], width - 3)}"
    lines: list[Line] = [[Segment(fit(head, width), ink(palette, "text", bold=True))]]
    if box.height >= WITH_COLUMNS:
        columns = f"  {fit('token', token)} {'p':>7}{' ' + probability_axis(longest, box.scale) if longest else ''}"
        lines.append([Segment(fit(columns, width - other) + f"in {'BA'[at]}".rjust(other) * bool(other), quiet)])
    shares = probability_shares(side.probs, box.scale)
    for row in range(box.height - len(lines)):
        if row >= len(side.ids):
            lines.append([Segment(" " * width)])
            continue
        drawn, same = side.ids[row] == data.drawn, row < len(beside.ids) and side.ids[row] == beside.ids[row]
        role = "accent" if row == 0 and data.flips else "text"
        shown = bar(float(shares[row]), box.longest(longest))
        sign = "●" if drawn else " " if same else "≠"
        lines.append(
            [
                Segment(f"{sign} ", ink(palette, "accent" if drawn or (row == 0 and data.flips) else "secondary", bold=drawn)),
                Segment(f"{fit(side.tokens[row], token)} ", ink(palette, role, bold=drawn)),
                Segment(f"{percent(float(side.probs[row])):>7}", ink(palette, role, bold=drawn)),
                Segment(f" {shown}" if longest else "", ink(palette, "accent" if role == "accent" else "probability")),
                Segment(" " * (width - 10 - token - other - (1 + len(shown) if longest else 0))),
                Segment(percent(float(side.other[row])).rjust(other) if other else "", quiet),
            ]
        )
    return lines[: max(0, box.height)]
