"""Sparklines: a value a token as upright bars, the cursor's on a ground of its own, what is not finite flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, Palette, columns, heat_runs, ink, shares, widened


def roomy(count: int, width: int) -> int:
    """Characters of a column: two as long as all have that room, as on the timeline."""
    return 2 if 2 * count <= width else 1


def spark_lines(
    palette: Palette, values: Sequence[float], rows: int, hue: str, marked: int = -1, scale: str = "linear", wide: int = 1
) -> list[Line]:
    """`rows` lines, `wide` characters a value, scaled to the largest; `marked` is the cursor's, or -1."""
    finite = [math.isfinite(value) for value in values]
    heights = [float(share) if good else 1.0 for share, good in zip(shares(values, scale), finite)] if len(values) else []
    runs = heat_runs([(at == marked) * 2 + (not good) for at, good in enumerate(finite)])
    lines: list[Line] = []
    for row in columns(heights, max(1, rows)):
        at, line = 0, []
        for code, count in runs:
            cursor, bad = divmod(code, 2)
            role, on = "warning" if bad else hue, "select" if cursor and palette.color else ""
            text = "!" * count if bad else row[at : at + count]
            line.append(Segment(widened(text, wide), ink(palette, role, on, bold=bool(bad))))
            at += count
        lines.append(line)
    return lines


def condensed_means(values: Sequence[float], room: int) -> tuple[list[float], int]:
    """At most `room` values that stand for all: the means of so many neighbours each."""
    together = max(1, math.ceil(len(values) / max(room, 1)))
    return [float(np.mean(values[at : at + together])) for at in range(0, len(values), together)], together
