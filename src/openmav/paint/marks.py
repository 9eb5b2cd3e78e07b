"""Marks: bars in eighths, columns, heat cells and numbers of fixed width. Scales change marks only, never numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openmav.paint.theme import SHADES

EIGHTHS = " ▏▎▍▌▋▊▉█"  # from the left
RISING = " ▁▂▃▄▅▆▇█"  # from below


def shares(values: ArrayLike, scale: str = "linear", largest: float = 0.0) -> NDArray[np.float64]:
    """The length of each mark, 0..1 of the longest; same shape as `values`. Values that are not finite get 0.

    linear: v / max. log: ln(1 + v) / ln(1 + max). minmax: (v - min) / (max - min). Negative values count as 0 in the first two,
    and max is at least `largest`, for marks that share their scale with others.
    """
    array = np.asarray(values, dtype=np.float64)
    good = np.isfinite(array)
    if not good.any():
        return np.zeros_like(array)
    finite = np.where(good, array, 0.0)
    if scale == "minmax":
        low = array[good].min()
        finite = np.where(good, array - low, 0.0)
    else:
        finite = np.maximum(finite, 0.0)
        largest = max(largest, float(finite.max()))
        if scale == "log":
            finite, largest = np.log1p(finite), math.log1p(largest)
    top = finite.max() if scale == "minmax" else largest
    return finite / top if top > 0 else np.zeros_like(finite)


def probability_shares(probs: ArrayLike, scale: str = "linear") -> NDArray[np.float64]:
    """The length of each bar on an axis that always goes to 100 %; log: from 0.01 % on. minmax: as `shares`."""
    if scale == "minmax":
        return shares(probs, scale)
    finite = np.nan_to_num(np.asarray(probs, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(0.0, 1.0)
    return np.where(finite > 0, (1 + np.log10(np.maximum(finite, 1e-12)) / 4).clip(0.0, 1.0), 0.0) if scale == "log" else finite


def probability_axis(width: int, scale: str = "linear") -> str:
    """What stands above such bars, `width` cells: where they begin and end; blank where there is no room, or where they end elsewhere."""
    if width < 10 or scale == "minmax":
        return " " * max(0, width)
    if scale == "log":
        return "0.01 %" + "100 %".rjust(width - 6) if width >= 14 else " " * width
    middle = "50" if width >= 24 else ""
    left = "0".ljust(width // 2 - len(middle) // 2) + middle
    return left + "100 %".rjust(width - len(left))


def bar(share: float, width: int) -> str:
    """A bar in eighths of a cell, at most `width` cells; a share above 0 is always visible."""
    eighths = min(round(share * width * 8), width * 8)
    if share > 0 and width > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def overlaid(before: float, after: float, width: int) -> tuple[str, str, str]:
    """Two bars in one, at most `width` cells: what both have, what only `after` has (▒), what only `before` had (░)."""
    both = bar(min(before, after), width)
    rest = max(round(max(before, after) * width) - len(both), int(not both and max(before, after) > 0 and width > 0))
    return (both, "▒" * rest, "") if after > before else (both, "", "░" * rest)


def columns(heights: Sequence[float], rows: int) -> list[str]:
    """Upright bars in eighths, one cell wide each: `rows` strings from the top; 0 is still one line at the bottom."""
    ticks = np.maximum(np.rint(np.clip(np.asarray(heights, dtype=np.float64), 0.0, 1.0) * (rows * 8)), 1).astype(np.int64)
    floors = np.arange(rows - 1, -1, -1)[:, None]
    return ["".join([RISING[eighths] for eighths in row]) for row in np.clip(ticks - floors * 8, 0, 8).tolist()]


def widened(text: str, wide: int) -> str:
    """Each character `wide` times."""
    return text if wide == 1 else "".join([one * wide for one in text])


def level(share: float, count: int) -> int:
    """Which of `count` steps of a ramp a share falls in."""
    return min(int(share * count), count - 1) if share > 0 else 0


def heat_runs(levels: Sequence[int]) -> list[tuple[int, int]]:
    """Equal neighbours merged: (level, how many)."""
    runs: list[tuple[int, int]] = []
    for one in levels:
        if runs and runs[-1][0] == one:
            runs[-1] = (one, runs[-1][1] + 1)
        else:
            runs.append((one, 1))
    return runs


def shade(share: float) -> str:
    """A heat cell without colour."""
    return SHADES[level(share, len(SHADES))]


def number_text(value: float, decimals: int) -> str:
    """Fixed decimals, 0 without a sign; "NaN", "inf" and "-inf" as such."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.lstrip("-")


def number(value: float, decimals: int, width: int) -> str:
    """The number right-aligned in `width` cells; one that is too long is shown with fewer decimals, then with an exponent,
    as is one that is not 0 but would be shown as 0.
    """
    text = number_text(value, decimals)
    if value != 0 and float(text) == 0:
        text = f"{value:.0e}".replace("e-0", "e-")
    elif len(text) > width and math.isfinite(value):
        short = [f"{value:.{d}e}".replace("e+0", "e").replace("e+", "e") for d in (1, 0)]
        options = [f"{value:.{d}f}" for d in range(decimals - 1, -1, -1)] + short
        text = next((option for option in options if len(option) <= width), options[-1])
    return text.rjust(width)


def percent(probability: float) -> str:
    """Seven cells: " 41.2 %", "100.0 %", " <0.1 %" for a value that is not 0 but would be shown as 0."""
    if not math.isfinite(probability):
        return number_text(probability, 1).rjust(7)
    if 0 < probability < 0.0005:
        return " <0.1 %"
    return f"{probability * 100:5.1f} %"
