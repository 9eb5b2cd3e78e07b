"""Bars around 0: orange to the right for what adds, blue to the left for what takes away."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, Palette, bar, ink, number_text


def signed(value: float, decimals: int) -> str:
    """The number with its sign: +1.20, -0.31; 0 without one."""
    text = number_text(value, decimals)
    return f"+{text}" if value > 0 and text[0] not in "Ni" and float(text) != 0 else text.lstrip("-") if text.strip("-0.") == "" else text


def signed_shares(values: ArrayLike, scale: str = "linear") -> NDArray[np.float64]:
    """How long each bar is, -1..1 of the longest; 0 for what is not finite. log: sign(v) ln(1 + |v|) / ln(1 + max |v|)."""
    array = np.asarray(values, dtype=np.float64)
    finite = np.where(np.isfinite(array), array, 0.0)
    if scale == "log":
        finite = np.sign(finite) * np.log1p(np.abs(finite))
    top = np.abs(finite).max() if finite.size else 0.0
    return finite / top if top > 0 else np.zeros_like(finite)


def diverging_bar(palette: Palette, share: float, room: int, longest: int | None = None) -> Line:
    """A bar in `room` cells with 0 in the middle; a share that is not 0 always leaves a trace. The left end is in half cells."""
    left = max(0, (room - 1) // 2)
    right = max(0, room - 1 - left)
    reach = min(left, right, longest or left)
    axis = Segment("│" if room > 0 else "", ink(palette, "frame"))
    if share < 0:
        shown = _leftwards(-share, reach)
        ends = [Segment(" " * (left - len(shown))), Segment(shown, _colour(palette, -1)), axis, Segment(" " * right)]
    else:
        shown = bar(share, reach)
        ends = [Segment(" " * left), axis, Segment(shown, _colour(palette, 1)), Segment(" " * (right - len(shown)))]
    return [segment for segment in ends if segment.text]


def floating_bar(palette: Palette, start: float, end: float, room: int) -> Line:
    """A bar from one place to another, in cells 0..room: orange to the right, blue to the left; it always leaves a trace."""
    left, right = sorted((min(max(start, 0.0), room), min(max(end, 0.0), room)))
    first = round(left * 2) / 2
    blank = int(first)
    tip = "▐" if first > blank else ""
    tail = bar(max(right - blank - len(tip), 0.0) / room, room) if room > 0 else ""
    shown = (tip + tail or ("▏" if blank < room else ""))[: room - blank]
    trace = shown or ("▕" if room > 0 else "")
    blank = min(blank, room - len(trace))
    return [Segment(" " * blank), Segment(trace, _colour(palette, 1 if end >= start else -1)), Segment(" " * (room - blank - len(trace)))]


def _colour(palette: Palette, sign: int) -> Style:
    return ink(palette, palette.diverging[-1 if sign > 0 else 0] or "text")


def _leftwards(share: float, width: int) -> str:
    """A bar that grows to the left, in half cells; at least a thin line."""
    full, rest = divmod(share * width, 1)
    tip = "▐" if rest >= 0.5 else "▕" if (rest >= 0.125 or full == 0) and full < width else ""
    return tip + "█" * int(full) if width > 0 else ""
