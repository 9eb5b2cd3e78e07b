"""Heat grids: rows of cells over columns that are condensed or scrolled where they are too many, and a legend for the frame.

A cell's value is a share: 0..1 on the theme's ramp, or -1..1 on blue (below 0) and orange (above); None is a cell that has no value,
NaN and infinity are flagged. Equal neighbours are one segment, and all styles come from the palette's ramps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, Palette, cells, fit, heat_runs, ink, level, number_text, readable
from openmav.paint.theme import NEGATIVE_SHADES, SHADES

MARK = "◆"  # the selected cell, where it is wide enough to hold text
_NONE, _BAD = -1, -2  # codes of cells beside the levels of a ramp


@dataclass(frozen=True)
class Columns:
    """Which of `total` columns stand where: `count` cells of `wide` characters from column `first` on, `together` columns in each."""

    total: int
    first: int
    count: int
    wide: int
    together: int = 1

    @property
    def room(self) -> int:
        """Characters that all cells take."""
        return self.count * self.wide

    @property
    def shown(self) -> range:
        """The columns in sight."""
        return range(self.first, min(self.first + self.count * self.together, self.total))

    def cell(self, column: int) -> int:
        """The cell that holds a column; -1 where it is out of sight."""
        return (column - self.first) // self.together if column in self.shown else -1

    def column(self, x: int) -> int | None:
        """The first column of the cell at character `x`; None beside the cells."""
        at = x // self.wide if self.wide else -1
        return self.first + at * self.together if 0 <= at < self.count else None

    def note(self, what: str, short: bool = False) -> str:
        """Says what is hidden or condensed; "" where each column has a cell of its own."""
        if self.together > 1:
            return f"{self.together} {what}/cell" if short else f"cell: mean of {self.together} {what}"
        if not self.shown or self.count == self.total:
            return ""
        last = self.shown[-1]
        if short:
            return f"{'◂ ' * (self.first > 0)}{self.first}–{last} of {self.total}{' ▸' * (last < self.total - 1)}"
        return f"{'◂ ' * (self.first > 0)}{self.first}–{last} of {self.total} {what}{' ▸' * (last < self.total - 1)}"

    def means(self, row: NDArray) -> list[float]:
        """The values of the cells of a row [total]: the columns themselves, or the means of neighbours; NaN where one is NaN."""
        part: NDArray[np.float64] = np.asarray(row[self.shown.start : self.shown.stop], dtype=np.float64)
        if self.together == 1:
            return list(map(float, part))
        return [float(part[at : at + self.together].mean()) for at in range(0, len(part), self.together)]


def condensed(total: int, room: int, most: int = 3) -> Columns:
    """All columns, at most `most` characters each; where they do not fit, neighbours share a cell."""
    if total <= 0 or room <= 0:
        return Columns(max(total, 0), 0, 0, 1)
    together = math.ceil(total / room)
    return Columns(total, 0, math.ceil(total / together), max(1, min(most, room // total)), together)


def windowed(total: int, room: int, wide: int, cursor: int) -> Columns:
    """The newest columns that fit with `wide` characters each, or those around a cursor that went back further."""
    fits = max(0, room // wide) if wide > 0 else 0
    if total <= fits:
        return Columns(total, 0, max(total, 0), wide)
    first = total - fits
    if cursor < first + fits // 8:
        first = max(0, cursor - fits // 2)
    return Columns(total, min(first, total - fits), fits, wide)


def code_of(share: float | None, steps: int, diverging: bool = False) -> int:
    """Which of `steps` colours a share has; -1 for none, -2 for what is not finite."""
    if share is None:
        return _NONE
    if not math.isfinite(share):
        return _BAD
    if not diverging:
        return level(share, steps)
    half = steps // 2
    return half + round(min(max(share, -1.0), 1.0) * half)


def _steps(palette: Palette, diverging: bool) -> int:
    if palette.color:
        return len(palette.diverging if diverging else palette.heat)
    return 2 * len(SHADES) - 1 if diverging else len(SHADES)


def glyph(code: int, diverging: bool = False) -> str:
    """A cell without colour: denser is higher; below 0 of a diverging ramp, lines instead of dots."""
    if not diverging:
        return SHADES[code]
    zero = len(SHADES) - 1
    return SHADES[code - zero] if code >= zero else NEGATIVE_SHADES[zero - code]


def heat_style(palette: Palette, code: int, diverging: bool = False, bold: bool = False) -> Style:
    """The ground of a level, and ink that can be read on it."""
    ramp = palette.diverging if diverging else palette.heat
    on = ramp[code]
    return ink(palette, readable(palette, on), on, bold=bold)


def heat_line(
    palette: Palette, shares: Sequence[float | None], wide: int, marked: int = -1, diverging: bool = False, sign: str = MARK
) -> Line:
    """Cells of `wide` characters; `marked` is the selected one, or -1, and bears the `sign`."""
    steps = _steps(palette, diverging)
    line: Line = []
    codes = [2 * code_of(share, steps, diverging) + (at == marked) for at, share in enumerate(shares)]
    for packed, count in heat_runs(codes):
        code, mark = divmod(packed, 2)
        line.append(_run(palette, code, count * wide, sign if mark else "", diverging))
    return line


def _run(palette: Palette, code: int, room: int, mark: str, diverging: bool) -> Segment:
    if code == _BAD:
        return Segment("!" * room, ink(palette, "warning", bold=True))
    if code == _NONE:
        return Segment(mark.center(room) if mark else "·" * room, ink(palette, "accent" if mark else "frame"))
    if not palette.color:
        shade = glyph(code, diverging)
        shown = mark.center(room, shade) if room > 1 or mark == MARK else shade * room  # one cell keeps its height under a lesser sign
        return Segment(shown, ink(palette, "text", underline=bool(mark)))
    return Segment(mark.center(room) if mark else " " * room, heat_style(palette, code, diverging))


def text_cell(palette: Palette, text: str, share: float | None, wide: int, marked: bool = False, diverging: bool = False) -> Segment:
    """A cell with text on its heat; without colour, the text follows the cell's glyph. The text must be safe already."""
    code = code_of(share, _steps(palette, diverging), diverging)
    if code == _BAD:
        return Segment(fit("!" + text, wide), ink(palette, "warning", bold=True))
    if code == _NONE:
        return Segment(fit(text or "·", wide), ink(palette, "accent" if marked else "secondary"))
    if palette.color:
        return Segment(fit(text, wide), heat_style(palette, code, diverging, bold=marked))
    return Segment(glyph(code, diverging) + fit(text, wide - 1), ink(palette, "text", bold=marked, underline=marked))


def legend(palette: Palette, low: float, high: float, unit: str = "", decimals: int = 2, diverging: bool = False) -> Line:
    """For the upper edge of the frame: the smallest value, the ramp, the largest, the unit."""
    quiet = ink(palette, "secondary")
    steps = _steps(palette, diverging)
    ramp: Line
    if palette.color:
        colours = palette.diverging if diverging else palette.heat
        ramp = [Segment(" ", ink(palette, "text", colours[code])) for code in range(0, steps, 1 if diverging else 2)]
    else:
        ramp = [Segment("".join(glyph(code, diverging) for code in range(steps)), ink(palette, "text"))]
    ends = [number_text(value, decimals) for value in (low, high)]
    return [Segment(f"{ends[0]} ", quiet), *ramp, Segment(f" {ends[1]}{f' {unit}' if unit else ''}", quiet)]


def fitting(texts: Sequence[str], width: int) -> str:
    """The first of the texts that fits in `width` cells; the last of them where none does."""
    return next((text for text in texts if cells(text) <= width), texts[-1])
