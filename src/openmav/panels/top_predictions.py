"""Top predictions: the most likely tokens for the place of the token under the cursor, the chosen one marked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number, number_text, overlaid, percent, probability_axis, probability_shares, visible
from openmav.panels.base import Box
from openmav.panels.widgets.difference import minus
from openmav.panels.widgets.diverging import signed
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import message, overlaid_legend, that_fit, why_no_step
from openmav.record import Array, Ids
from openmav.view import Selection, View

TITLE = "Top predictions"
NEEDS = ()
ROWS = 21
HELP = """\
What it shows: the model's most likely tokens at the position of the token under the cursor, most likely
first. Columns: the token, its probability, (when sampling is on) the probability after temperature and filters, a
bar, and the logit. A space is shown as · and a newline as ⏎. The chosen token is marked with ● and in amber.

How to read it: one long bar means that the model is sure; several of the same length mean that it could continue in many
ways. If the chosen token is not the first, sampling picked it or you forced it. "cut" means that the sampling filters
left nothing of a token; in a bar, ▒ is what sampling added and ░ what it took away. Select another one with the up and
down keys or a click, and press enter: the text continues from there with that token instead. Where the sampling
parameters were changed after the newest token, the title says "preview": what they would leave of its candidates.
Where a token or a run is pinned (d, D), "change" is the difference of p from it, in percentage points.

Formula: p = softmax(logits), in 32-bit floating point, over the whole vocabulary, before any change by sampling. The
bars have one axis for all tokens, 0 to 100 %; --scale changes the bars, never the numbers. Entropy is -sum p ln p over the whole
vocabulary, in nats (0 = certain).

Source: the model's own output for this position.

What is normal: entropies of 1 to 4 nats in running text, near 0 inside words. Logits have no fixed zero: only their
differences count. Maximised (m), the panel adds each token's rank and id, what all ranks down to it sum to, and its surprisal
in nats, for all candidates that the step has.
"""


EXTRA = 4 + 1 + 7 + 1 + 1 + 7 + 1 + 6  # cells of what only a maximised panel says
LOGIT, LEAST_BAR = 9, 8  # cells of a logit, and of the longest bar beside it; where there are fewer, the bar alone


@dataclass(frozen=True)
class PredictionsData:
    """The candidates of the shown step, most likely first; arrays are [k]."""

    empty: str | None  # why there is nothing to show; None where there is
    tokens: tuple[str, ...] = ()
    ids: Ids | None = None
    probs: Array | None = None  # of the raw distribution
    sampled_probs: Array | None = None  # after sampling's filters, 0 where they cut the token
    logits: Array | None = None
    chosen: int = -1  # row of the chosen token; -1 where it is not among them
    selected: int | None = None  # row that the user selected
    entropy: float = 0.0  # nats, of the raw distribution
    forced: bool = False
    greedy: bool = False
    sampling: str = ""  # how the token was chosen, in words
    changes: Array | None = None  # [k] of p, less that of the pinned step; NaN for a token that was none of its candidates
    minus: str = ""  # what is subtracted
    pending: bool = False  # `sampled_probs`, `greedy` and `sampling` are those that hold from the next token on


def candidates(_view: View, _width: int, height: int) -> int:
    return height - 1


def data(view: View) -> PredictionsData:
    step = view.step
    if step is None:
        return PredictionsData(why_no_step(view))
    candidates, pending = step.candidates, view.pending
    sampling = step.sampling if pending is None else pending.sampling
    rows = (candidates.token_ids == step.token_id).nonzero()[0]
    return PredictionsData(
        empty=None,
        tokens=tuple(visible(token) for token in candidates.tokens),
        ids=candidates.token_ids,
        probs=candidates.probs,
        sampled_probs=candidates.sampled_probs if pending is None else pending.sampled,
        logits=candidates.logits,
        chosen=int(rows[0]) if len(rows) else -1,
        selected=view.candidate,
        entropy=step.entropy,
        forced=step.forced,
        greedy=sampling.greedy,
        sampling=sampling.describe(),
        changes=_changes(view),
        minus=minus(view),
        pending=pending is not None,
    )


def _changes(view: View) -> Array | None:
    step, reference = view.step, view.reference
    if step is None or reference is None:
        return None
    before = dict(zip(reference.candidates.token_ids.tolist(), reference.candidates.probs.tolist()))
    ids = step.candidates.token_ids.tolist()
    return step.candidates.probs - np.array([before.get(token_id, math.nan) for token_id in ids], dtype=np.float32)


def shown_rows(data: PredictionsData, rows: int) -> list[int]:
    """Which candidates `rows` rows show: from the top, or from where the selected one fits; the chosen one is always among them."""
    count = len(data.tokens)
    if rows <= 0 or count <= rows:
        return list(range(max(0, count if rows > 0 else 0)))
    first = max(0, (data.selected or 0) - rows + 2)
    shown = list(range(first, min(first + rows, count)))
    if data.chosen > shown[-1]:
        shown[-1] = data.chosen
    elif 0 <= data.chosen < shown[0]:
        shown[0] = data.chosen
    return shown


def heading(data: PredictionsData, box: Box) -> str:
    return fitting([f"{TITLE}: preview of {data.sampling}", f"{TITLE}: preview", TITLE], box.width) if data.pending else TITLE


def note(data: PredictionsData, box: Box) -> str:
    if data.empty is not None:
        return ""
    hidden = len(data.tokens) - len(shown_rows(data, box.height - _has_heading(box)))
    how = f"{data.sampling}, from the next token on" if data.pending else "forced by you" if data.forced else data.sampling
    parts = [*([data.minus] if data.minus else []), f"entropy {number_text(data.entropy, 2)} nats", how]
    return " · ".join(parts + ([f"{hidden} more ▼"] if hidden else []))


def legend(data: PredictionsData, box: Box) -> Line | None:
    """What the parts of the bars are, where sampling changed them."""
    return overlaid_legend(box) if data.empty is None and not data.greedy and box.width >= 60 else None


def _has_heading(box: Box) -> int:
    return int(box.height >= 4)


def _widths(data: PredictionsData, box: Box) -> tuple[int, bool, bool, int]:
    """(cells of the token, sampled column?, logit column?, cells of the longest bar)."""
    sampled = not data.greedy and box.width >= 34
    token = max(4, min(24, box.width * 3 // 10))
    longest = max(0, box.width - 2 - token - 1 - 7 - (8 if sampled else 0) - 1 - EXTRA * _more(box))
    logit = longest >= LOGIT + (LEAST_BAR if data.changes is None else 0)
    return token, sampled, logit, box.longest(longest - LOGIT * logit)


def _more(box: Box) -> bool:
    """Whether there is room for what only a maximised panel says: rank, id, what the ranks down to this one sum to, surprisal."""
    return box.maximised and box.width >= 76


def _extra(data: PredictionsData, box: Box, row: int) -> tuple[str, str]:
    """(what stands before the token, what stands behind its probability) in a maximised panel."""
    if not _more(box) or data.ids is None or data.probs is None:
        return "", ""
    p, total = float(data.probs[row]), float(np.sum(data.probs[: row + 1], dtype=np.float64))
    ranked = row == 0 or p <= float(data.probs[row - 1])  # what was chosen may stand below those that are more likely
    nats = number_text(-math.log(p), 2) if p > 0 else number_text(math.inf if p == 0 else p, 0)
    return f"{row + 1 if ranked else '':>4} {int(data.ids[row]):>7} ", f" {percent(total) if ranked else '':>7} {nats:>6}"


def _heading(data: PredictionsData, box: Box) -> Line:
    token, sampled, logit, longest = _widths(data, box)
    before, behind = (f"{'rank':>4} {'id':>7} ", f" {'sum':>7} {'nats':>6}") if _more(box) else ("", "")
    left = (
        f"  {before}{'token':<{token}} {'p':>7}{behind}"
        + (f"{'sampled':>8}" if sampled else "")
        + " "
        + probability_axis(longest, box.scale)
    )
    right = f"{'logit' if data.changes is None else 'change':>{LOGIT}}" if logit else ""
    return [Segment(left + " " * max(0, box.width - len(left) - len(right)) + right, ink(box.palette, "secondary"))]


def _row(data: PredictionsData, box: Box, row: int, p: float, left: float, logit: float, shares: tuple[float, float]) -> Line:
    token_width, has_sampled, has_logit, longest = _widths(data, box)
    share, left_share = shares
    chosen, selected = row == data.chosen, row == data.selected
    on = "select" if selected else ""
    main = ink(box.palette, "accent" if chosen else "text", on, bold=chosen)
    quiet = ink(box.palette, "secondary", on)
    before, behind = _extra(data, box, row)
    mark = "▸" if selected else "●" if chosen else " "
    line = [
        Segment(f"{mark} ", main),
        Segment(before, quiet),
        Segment(f"{fit(data.tokens[row], token_width)} ", main),
        Segment(percent(p), ink(box.palette, "text", on, bold=chosen)),
        Segment(behind, quiet),
    ]
    if has_sampled:
        line.append(Segment("     cut" if left == 0 else f" {percent(left)}", quiet))
    hue, ground = "accent" if chosen else "probability", on if box.palette.color else ""
    both, gained, lost = overlaid(share, left_share, longest) if has_sampled else (bar(share, longest), "", "")
    shown = both + gained + lost
    line += [Segment(" " + both + gained, ink(box.palette, hue, ground)), Segment(lost, ink(box.palette, "secondary", ground))]
    used = 2 + len(before) + token_width + 1 + 7 + len(behind) + (8 if has_sampled else 0) + 1 + len(shown)
    end = _end(data, row, logit) if has_logit else ""
    return [*line, Segment(" " * max(0, box.width - used - len(end)) + end, quiet)]


def _end(data: PredictionsData, row: int, logit: float) -> str:
    """The logit; where something is pinned, the difference of p in percentage points, · where it is not known."""
    if data.changes is None:
        return number(logit, 2, LOGIT)
    change = float(data.changes[row])
    return ("·" if math.isnan(change) else f"{signed(100 * change, 1)} pp").rjust(LOGIT)


def render(data: PredictionsData, box: Box) -> list[Line]:
    probs, sampled, logits = data.probs, data.sampled_probs, data.logits
    if data.empty is not None or probs is None or sampled is None or logits is None:
        return message(box, data.empty or "")
    heading, lengths, left = _has_heading(box), probability_shares(probs, box.scale), probability_shares(sampled, box.scale)
    lines = [_heading(data, box)] * heading
    for row in shown_rows(data, box.height - heading):
        lines.append(
            _row(data, box, row, float(probs[row]), float(sampled[row]), float(logits[row]), (float(lengths[row]), float(left[row])))
        )
    return that_fit(box, lines)


def pick(data: PredictionsData, box: Box, x: int, y: int) -> Selection | None:
    """The candidate of the row that was clicked."""
    if data.empty is not None:
        return None
    at, rows = y - _has_heading(box), shown_rows(data, box.height - _has_heading(box))
    return Selection(candidate=rows[at]) if 0 <= at < len(rows) else None
