"""Top predictions: the most likely tokens for the place of the token under the cursor, the chosen one marked."""

from __future__ import annotations

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number, number_text, percent, shares, visible
from openmav.panels._layers import that_fit, waiting
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Top predictions"
NEEDS = ()
ROWS = 21
HELP = """\
What it shows: the tokens that the model held most likely at the place of the token under the cursor, most likely
first. Columns: the token, its probability, (when sampling is on) the probability after temperature and filters, a
bar, and the logit. A space is shown as · and a newline as ⏎. The chosen token is marked with ● and in amber.

How to read it: one long bar means that the model is sure; several of the same length mean that it could go on in many
ways. If the chosen token is not the first, sampling picked it or you forced it. "cut" means that the sampling filters
left nothing of a token. Select another one with the up and down keys or a click, and press enter: the text goes on
from there with that token instead.

Formula: p = softmax(logits), in 32-bit floating point, over the whole vocabulary, before any change by sampling. The
bar is scaled to the largest p; --scale changes the bars, never the numbers. Entropy is -sum p ln p over the whole
vocabulary, in nats (0 = certain).

Source: the model's own output for this position.

What is normal: entropies of 1 to 4 nats in running text, near 0 inside words. Logits have no fixed zero: only their
differences count.
"""


def choice(step: Step) -> int:
    """Row of the chosen token; -1 if it is not among the candidates."""
    rows = (step.candidates.token_ids == step.token_id).nonzero()[0]
    return int(rows[0]) if len(rows) else -1


def shown_rows(view: View, step: Step, rows: int) -> list[int]:
    """Which candidates `rows` rows show: from the top, or from where the selected one fits; the chosen one is always among them."""
    count = len(step.candidates)
    if rows <= 0 or count <= rows:
        return list(range(max(0, count if rows > 0 else 0)))
    first = max(0, (view.candidate or 0) - rows + 2)
    shown = list(range(first, min(first + rows, count)))
    chosen = choice(step)
    if chosen > shown[-1]:
        shown[-1] = chosen
    elif 0 <= chosen < shown[0]:
        shown[0] = chosen
    return shown


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    rows = shown_rows(view, view.step, height - _has_heading(height))
    parts = [f"entropy {number_text(view.step.entropy, 2)} nats", "forced by you" if view.step.forced else view.sampling.describe()]
    hidden = len(view.step.candidates) - len(rows)
    return " · ".join(parts + ([f"{hidden} more ▼"] if hidden else []))


def _has_heading(height: int) -> int:
    return int(height >= 4)


def _widths(view: View, width: int) -> tuple[int, bool, bool, int]:
    """(cells of the token, sampled column?, logit column?, cells of the longest bar)."""
    sampled = not view.sampling.greedy and width >= 34
    logit = width >= 30 + (10 if sampled else 0)
    token = max(4, min(24, width * 3 // 10))
    room = max(0, width - 2 - token - 1 - 7 - (8 if sampled else 0) - 1 - (9 if logit else 0))
    return token, sampled, logit, min(room, view.options.max_bar_length or room)


def _heading(view: View, width: int) -> Line:
    token, sampled, logit, _ = _widths(view, width)
    left = f"  {'token':<{token}} {'p':>7}" + (f"{'sampled':>8}" if sampled else "")
    right = f"{'logit':>9}" if logit else ""
    return [Segment(left + " " * max(0, width - len(left) - len(right)) + right, ink(view.palette, "secondary"))]


def _row(view: View, step: Step, row: int, share: float, width: int) -> Line:
    token_room, sampled, logit, longest = _widths(view, width)
    candidates, chosen, selected = step.candidates, row == choice(step), row == view.candidate
    on = "select" if selected else ""
    main = ink(view.palette, "accent" if chosen else "text", on, bold=chosen)
    quiet = ink(view.palette, "secondary", on)
    mark = "▸" if selected else "●" if chosen else " "
    line = [
        Segment(f"{mark} {fit(visible(candidates.tokens[row]), token_room)} ", main),
        Segment(percent(float(candidates.probs[row])), ink(view.palette, "text", on, bold=chosen)),
    ]
    if sampled:
        left = float(candidates.sampled_probs[row])
        line.append(Segment("     cut" if left == 0 else f" {percent(left)}", quiet))
    shown = bar(share, longest)
    line.append(Segment(" " + shown, ink(view.palette, "accent" if chosen else "probability", "" if view.palette.color is False else on)))
    used = 2 + token_room + 1 + 7 + (8 if sampled else 0) + 1 + len(shown)
    end = number(float(candidates.logits[row]), 2, 9) if logit else ""
    return [*line, Segment(" " * max(0, width - used - len(end)) + end, quiet)]


def render(view: View, width: int, height: int) -> list[Line]:
    step = view.step
    if step is None:
        return waiting(view, width)
    heading = _has_heading(height)
    lengths = shares(step.candidates.probs, view.options.scale)
    rows = shown_rows(view, step, height - heading)
    lines = [_heading(view, width)] * heading + [_row(view, step, row, float(lengths[row]), width) for row in rows]
    return that_fit(view, width, lines)


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The candidate of the row that was clicked."""
    if view.step is None:
        return view
    at = y - _has_heading(height)
    rows = shown_rows(view, view.step, height - _has_heading(height))
    return view.at_candidate(rows[at]) if 0 <= at < len(rows) else view
