"""The stages of sampling: how they are written, and what each leaves of the candidates, as bars side by side."""

from __future__ import annotations

import math

from rich.segment import Segment

from openmav.paint import Line, bar, cells, fit, ink, number_text, percent, probability_shares, visible
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.record import SAMPLING_STAGES
from openmav.record.sampling_preview import SamplingPreview

ON, SURVIVORS, KEPT, ENTROPY, CHOSEN = range(5)  # columns of "sampling_stages"
UNITS = {  # decimals of what a stage is set to
    **dict.fromkeys(("penalty", "prompt penalty", "temperature", "top-p", "min-p", "top-h", "typical-p"), 2),
    **dict.fromkeys(("top-k", "no n-gram", "prompt n-gram", "bad words", "min length", "min tokens", "suppressed", "not first"), 0),
    **dict.fromkeys(("epsilon", "eta"), 4),
}
ABBREVIATED = {"temperature": "temp.", "penalty": "pen."}  # where the column is too narrow for the whole name
WHOLE, LEAST_COLUMN, WITH_NUMBERS, MOST_COLUMN = 17, 7, 14, 26  # cells
MARK = 2


def stage_label(name: str, setting: float) -> str:
    """The name of a stage that is on, and what it is set to."""
    return f"{name} {number_text(setting, UNITS[name])}" if name in UNITS else name


def shortened(label: str, width: int) -> str:
    """The label in `width` cells."""
    for whole, short in ABBREVIATED.items() if width < WHOLE else ():
        label = label.replace(whole, short)
    return fit(label, width)


def stage_lines(preview: SamplingPreview, box: Box) -> list[Line]:
    """A column for each stage, a row for each candidate: its bar after the stage, from 0 to 100 %; below, how many tokens are left."""
    token = min(16, max(8, box.width // 5))
    shown, wide = _columns(preview, box.width - MARK - token)
    quiet = ink(box.palette, "secondary")
    names = [shortened(_label(preview, at, wide), wide - 1) + " " for at in shown]
    lines: list[Line] = [[Segment(" " * (MARK + token), quiet), *(Segment(name, quiet) for name in names)]]
    rows = min(len(preview.tokens), max(0, box.height - 3))
    for row in range(rows):
        chosen = int(preview.token_ids[row]) == preview.token_id
        style = ink(box.palette, "accent" if chosen else "text", bold=chosen)
        line = [Segment(f"{'●' if chosen else ' '} {fit(visible(preview.tokens[row]), token)}", style)]
        for at in shown:
            line += _cell(float(preview.probs[at, row]), at > 0, box, wide, "accent" if chosen else "probability")
        lines.append(line)
    for names_of, texts in _totals(preview, shown):
        name = fitting(names_of, token - 1)
        lines.append([Segment(fit(f"  {name}", MARK + token), quiet), *(Segment(f"{text:<{wide}}", quiet) for text in texts)])
    return lines[: box.height]


def _columns(preview: SamplingPreview, room: int) -> tuple[list[int], int]:
    """(the stages that fit, cells of each): where there are too many, the first and the last ones."""
    every = list(range(len(preview.stages)))
    most = max(1, room // LEAST_COLUMN)
    shown = every if len(every) <= most else [0, *every[len(every) - most + 1 :]]
    return shown, min(MOST_COLUMN, room // len(shown))


def _label(preview: SamplingPreview, at: int, width: int) -> str:
    name = preview.stages[at]
    if name not in UNITS or width < LEAST_COLUMN + 3:
        return name
    return f"{name} {float(preview.values['sampling_stages.settings'][SAMPLING_STAGES.index(name)]):g}"


def _cell(p: float, later: bool, box: Box, width: int, hue: str) -> Line:
    """A bar, and the number behind it where there is room; "cut" where the stage left nothing."""
    if p == 0 and later:
        return [Segment(f"{'cut':<{width}}", ink(box.palette, "secondary"))]
    number = f"{percent(p)} " if width >= WITH_NUMBERS else ""
    shown = bar(float(probability_shares([p], box.scale)[0]), width - 1 - cells(number))
    style = ink(box.palette, "text" if math.isfinite(p) else "warning")
    return [
        Segment(number, style),
        Segment(shown, ink(box.palette, hue)),
        Segment(" " * (width - cells(number) - cells(shown))),
    ]


def _totals(preview: SamplingPreview, shown: list[int]) -> list[tuple[tuple[str, str], list[str]]]:
    """(what it is, also in short, a text for each column): the tokens that have a chance, and the entropy."""
    rows = preview.values["sampling_stages"]
    tokens, entropies = [], []
    for at in shown:
        name = preview.stages[at]
        if name not in SAMPLING_STAGES:  # nothing is drawn
            tokens.append("1")
            entropies.append(number_text(0.0, 2))
            continue
        row = rows[SAMPLING_STAGES.index(name)]
        tokens.append(count_text(float(row[SURVIVORS])))
        entropies.append(number_text(float(row[ENTROPY]), 2))
    return [(("tokens left", "tokens"), tokens), (("entropy, nats", "entropy"), entropies)]


def count_text(survivors: float) -> str:
    return f"{int(survivors):,}" if math.isfinite(survivors) else number_text(survivors, 0)
