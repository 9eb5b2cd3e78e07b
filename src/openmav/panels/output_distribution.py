"""Output distribution: how much probability lies on the first rank, the second, the next two, four, eight and so on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment

from openmav.paint import Line, bar, ink, number_text, overlaid, percent, probability_axis, probability_shares
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import message, not_captured, overlaid_legend, that_fit, why_no_step
from openmav.record import RANK_EDGES, Array
from openmav.view import View

TITLE = "Output distribution"
NEEDS = ("distribution",)
ROWS = len(RANK_EDGES) + 2  # a heading and the bins
HELP = """\
What it shows: all tokens of the vocabulary sorted by their probability, in bins of ranks: the most likely token, the
second, ranks 3-4, 5-8, 9-16 and so on; the last bin holds all the rest. Each row says how much probability the bin
holds; the rows sum to 100 %.

How to read it: much in the first row means that the model is sure. Much in the last rows means a long tail: sampling
without a filter would often draw a rare token. When sampling is on, the right column says what is left of each bin
after temperature and filters; "cut" means that nothing is. In the bar, ▒ is what sampling added, ░ what it took away.

Formula: p = softmax(logits) over the whole vocabulary, in 32-bit floating point; the mass of a bin is the sum of its
p, in percent; bars go from 0 to 100 %. Entropy, on the lower edge, is -sum p ln p, in nats; exp(entropy) is the number of equally likely
tokens that would be as uncertain.

Source: the model's own logits for the token under the cursor, before any change by sampling.

What is normal: it changes from token to token: nearly all in the first row inside a word or a fixed phrase, spread
out where a sentence could go anywhere. Where there are fewer rows than bins, the last row sums up what remains.
"""

LABEL = 7


@dataclass(frozen=True)
class DistributionData:
    empty: str | None  # why there is nothing to show; None where there is
    entropy: float | None  # nats, of the raw distribution
    mass: Array | None  # [bins, 2]: probability in each bin of ranks, raw and after sampling's filters
    greedy: bool
    pending: bool  # the second column is of the sampling that holds from the next token on


def data(view: View) -> DistributionData:
    mass, none, pending = view.sampling_values("distribution"), why_no_step(view), view.pending
    return DistributionData(
        empty=none if none is not None or mass is not None else not_captured(view),
        entropy=view.step.entropy if view.step else None,
        mass=mass,
        greedy=view.step is None or (view.step.sampling if pending is None else pending.sampling).greedy,
        pending=pending is not None,
    )


def ranks(first: int, last: int | None) -> str:
    """How a bin of ranks is written."""
    return f"{first}+" if last is None else f"{first}" if first == last else f"{first}-{last}"


def bins(values: NDArray, rows: int) -> list[tuple[str, float, float]]:
    """(ranks, raw mass, mass after sampling) in at most `rows` rows; the last sums up what does not fit."""
    firsts = (1, *(edge + 1 for edge in RANK_EDGES))
    lasts = (*RANK_EDGES, None)
    shown = [(ranks(first, last), float(raw), float(left)) for first, last, (raw, left) in zip(firsts, lasts, values)]
    if 0 < rows < len(shown):
        rest = values[rows - 1 :].sum(axis=0, dtype=np.float64)
        shown = [*shown[: rows - 1], (ranks(firsts[rows - 1], None), float(rest[0]), float(rest[1]))]
    return shown


def heading(data: DistributionData, box: Box) -> str:
    return fitting([f"{TITLE}: preview", TITLE], box.width) if data.pending else TITLE


def note(data: DistributionData, box: Box) -> str:
    if data.entropy is None:
        return ""
    return f"entropy {number_text(data.entropy, 2)} nats · {number_text(float(np.exp(data.entropy)), 1)} effective choices"


def legend(data: DistributionData, box: Box) -> Line | None:
    """What the parts of the bars are, where sampling changed them."""
    return overlaid_legend(box) if data.empty is None and not data.greedy and box.width >= 50 else None


def render(data: DistributionData, box: Box) -> list[Line]:
    if data.empty is not None or data.mass is None:
        return message(box, data.empty or "")
    sampled = not data.greedy and box.width >= 28
    heading = box.height > len(RANK_EDGES) + 1
    rows = bins(data.mass, box.height - heading)
    lengths = probability_shares([raw for _, raw, _ in rows], box.scale)
    longest = box.longest(max(0, box.width - LABEL - 1 - 7 - (8 if sampled else 0) - 1))
    quiet = ink(box.palette, "secondary")
    names = f"{'rank':>{LABEL}} {'mass':>7}" + (f"{'sampled':>8}" if sampled else "")
    lines: list[Line] = [[Segment(f"{names} {probability_axis(longest, box.scale)}", quiet)]] if heading else []
    after = probability_shares([left for _, _, left in rows], box.scale)
    for (label, raw, left), share, left_share in zip(rows, lengths, after):
        line = [Segment(f"{label:>{LABEL}} ", quiet), Segment(percent(raw), ink(box.palette, "text" if np.isfinite(raw) else "warning"))]
        if sampled:
            line.append(Segment("     cut" if left == 0 else f" {percent(left)}", quiet))
        shown = overlaid(float(share), float(left_share), longest) if sampled else (bar(float(share), longest), "", "")
        lines.append([*line, Segment(" " + shown[0] + shown[1], ink(box.palette, "probability")), Segment(shown[2], quiet)])
    return that_fit(box, lines)
