"""Sparklines: a value a token as upright bars, the cursor's on a ground of its own, what is not finite flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, Palette, columns, heat_runs, ink, shares, surprise, widened

WIDEST = 4  # characters of a column
UNKNOWN = -9  # where a value is not known


def roomy(count: int, width: int) -> int:
    """Characters of a column: as many as all have room for, as on the timeline."""
    return max(1, min(WIDEST, width // max(count, 1)))


def spark_lines(
    palette: Palette,
    values: Sequence[float],
    rows: int,
    hue: str | None,
    marked: int = -1,
    scale: str = "linear",
    wide: int = 1,
    known: Sequence[bool] | None = None,
) -> list[Line]:
    """`rows` lines, `wide` characters a value, scaled to the largest; `marked` is the cursor's, or -1.

    Without a `hue` the values are nats, each in the colour of its step of surprise. Where `known` says no, there is a gap.
    """
    finite = [math.isfinite(value) for value in values]
    heights = [float(share) if good else 1.0 for share, good in zip(shares(values, scale), finite)] if len(values) else []
    steps = [surprise.step_of(value) if hue is None or not good else 0 for value, good in zip(values, finite)]
    there = [True] * len(values) if known is None else known
    runs = heat_runs([2 * step + (at == marked) if there[at] else UNKNOWN for at, step in enumerate(steps)])
    lines: list[Line] = []
    for row in columns(heights, max(1, rows)):
        at, line = 0, []
        for code, count in runs:
            if code == UNKNOWN:
                line.append(Segment(" " * (count * wide)))
                at += count
                continue
            step, cursor = divmod(code, 2)
            on, bad = "select" if cursor and palette.color else "", step == surprise.NOT_FINITE
            text = "!" * count if bad else row[at : at + count]
            style = surprise.column(palette, step, on) if hue is None or bad else ink(palette, hue, on)
            line.append(Segment(widened(text, wide), style))
            at += count
        lines.append(line)
    return lines


def condensed_means(values: Sequence[float], room: int) -> tuple[list[float], int]:
    """At most `room` values that stand for all: the means of so many neighbours each."""
    together = max(1, math.ceil(len(values) / max(room, 1)))
    return [float(np.mean(values[at : at + together])) for at in range(0, len(values), together)], together
