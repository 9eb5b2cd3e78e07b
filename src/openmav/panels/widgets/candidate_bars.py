"""The candidates of a step as bars on a fixed axis from 0 to 100 %."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, percent, probability_axis, probability_shares, visible
from openmav.panels.base import Box
from openmav.panels.widgets.parts import LEAST, Row, heading_row, token_and_bar
from openmav.record import Array
from openmav.view import Selection, View


@dataclass(frozen=True)
class CandidateBars:
    """The candidates, most likely first."""

    tokens: tuple[str, ...]
    probs: Array  # [k], raw
    cut: tuple[bool, ...]  # [k]: sampling left nothing of them
    chosen: int  # row of the chosen one; -1 where it is not among them
    selected: int | None  # row that the user selected


def candidate_bars(view: View) -> CandidateBars | None:
    """Those of the shown step; None where there is none."""
    step = view.step
    if step is None:
        return None
    candidates = step.candidates
    rows = (candidates.token_ids == step.token_id).nonzero()[0]
    return CandidateBars(
        tokens=tuple(visible(token) for token in candidates.tokens),
        probs=candidates.probs,
        cut=tuple(not step.sampling.greedy and bool(p == 0) for p in candidates.sampled_probs),
        chosen=int(rows[0]) if len(rows) else -1,
        selected=view.candidate,
    )


def _shown(data: CandidateBars, rows: int) -> list[int]:
    """From the top, or from where the selected one fits; the chosen one is always among them."""
    count = len(data.tokens)
    first = max(0, min((data.selected or 0) - rows + 2, count - rows))
    shown = list(range(first, min(first + rows, count)))
    if shown and data.chosen >= 0 and data.chosen not in shown:
        shown[-1 if data.chosen > shown[-1] else 0] = data.chosen
    return shown


def candidate_rows(data: CandidateBars, box: Box, width: int, height: int) -> list[Row]:
    """A heading with the axis, then mark, token, p and a bar; none at all where there are too few rows."""
    if height < LEAST:
        return []
    token, longest = token_and_bar(box, width - 2 - 8)
    axis = probability_axis(longest, box.scale).rstrip()
    rows = [heading_row(box, min(width, 2 + token + 8 + 1 + longest), "candidates", axis)]
    shares = probability_shares(data.probs, box.scale)
    for row in _shown(data, height - 1):
        rows.append(Row(_line(data, row, float(shares[row]), box, token, longest), Selection(candidate=row)))
    return rows


def _line(data: CandidateBars, row: int, share: float, box: Box, token: int, longest: int) -> Line:
    palette, p = box.palette, float(data.probs[row])
    chosen, selected = row == data.chosen, row == data.selected
    on, role = "select" if selected else "", "accent" if chosen else "secondary" if data.cut[row] else "text"
    sign = "▸" if selected else "●" if chosen else " "
    line = [Segment(f"{sign} {fit(data.tokens[row], token)} {percent(p)}", ink(palette, role, on, bold=chosen))]
    if longest:
        shown = bar(share, longest)
        line.append(Segment(f" {shown}", ink(palette, "accent" if chosen else "probability", on if palette.color else "")))
        if data.cut[row] and len(shown) + 4 <= longest:
            line.append(Segment(" cut", ink(palette, "secondary", on)))
    return line
