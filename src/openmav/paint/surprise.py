"""One scale for everything in nats that says how unexpected or how spread out something is: fixed steps, a colour each.

Text, timeline, maps and their legends all use it, so that a colour means the same number of nats everywhere and at every token.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style

from openmav.paint.lines import Line
from openmav.paint.marks import shade, shares
from openmav.paint.theme import Palette, ink, readable

EDGES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0)  # nats at which the next step begins; below the first is what was expected
LABELS = ("0", "½", "1", "2", "3", "4", "5", "7")  # where each step begins
STEPS = len(LABELS)
NOT_FINITE = -1
UNDERLINED, BOLD = 4, 6  # the steps from which on text is so where there is no colour: 3 nats, 5 nats


def step_of(nats: float) -> int:
    """The step of so many nats, 0 to STEPS - 1; -1 for a number that is not finite."""
    return sum(nats >= edge for edge in EDGES) if math.isfinite(nats) else NOT_FINITE


def step_shares(nats: NDArray) -> NDArray[np.float64]:
    """Where on a ramp of any length each value's step is, 0..1; what is not finite stays so."""
    steps = np.searchsorted(EDGES, nats, side="right")
    return np.where(np.isfinite(nats), (steps + 0.5) / STEPS, nats)


def map_shares(nats: NDArray, scale: str) -> NDArray[np.float64]:
    """0..1 for the cells of a map: the fixed steps; of the largest in sight where another scale than the linear one is chosen."""
    return step_shares(nats) if scale == "linear" else np.where(np.isfinite(nats), shares(nats, scale), nats)


def tinted(palette: Palette, step: int, role: str = "text", underline: bool = False) -> Style:
    """The style of text by its step: the first has the ground of its surroundings; without colour, underlined, then bold too."""
    if not palette.color:
        return ink(palette, role, bold=step >= BOLD, underline=step >= UNDERLINED or underline)
    on = palette.surprise[step] if step else ""
    return ink(palette, readable(palette, on) if on else role, on, underline=underline)


def column(palette: Palette, step: int, on: str = "") -> Style:
    """The style of an upright bar by its step, on a ground where there is colour."""
    if step == NOT_FINITE:
        return ink(palette, "warning", on if palette.color else "", bold=True)
    return ink(palette, palette.surprise[step] if palette.color else "text", on if palette.color else "")


def cursor(palette: Palette, underline: bool = False) -> Style:
    """The token under the cursor: reversed, which no step is."""
    return ink(palette, palette.ground or "text", "text", bold=True, underline=underline)


def legend(palette: Palette, unit: str = "nats", labels: tuple[str, ...] = LABELS) -> Line:
    """The steps as cells that hold where each begins, and the unit."""
    if palette.color:
        cells = [Segment(f"{label:>2}", ink(palette, readable(palette, on), on)) for label, on in zip(labels, palette.surprise)]
    else:
        cells = [Segment(f" {label}", tinted(palette, step, "secondary")) for step, label in enumerate(labels)]
    return [*cells, Segment(f" {unit}", ink(palette, "secondary"))]


def map_legend(palette: Palette, unit: str = "nats") -> Line:
    """The same for a map's cells, which are glyphs where there is no colour: each with the nats at which it begins."""
    if palette.color:
        return legend(palette, unit)
    glyphs = [shade((step + 0.5) / STEPS) for step in range(STEPS)]
    cells = [f"{label}{glyph}" for at, (label, glyph) in enumerate(zip(LABELS, glyphs)) if glyph not in glyphs[:at]]
    return [Segment(" ".join(cells), ink(palette, "text")), Segment(f" {unit}", ink(palette, "secondary"))]
