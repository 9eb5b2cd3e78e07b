"""What each layer adds and how much of its attention rests on the first token, below the checks of a model's health."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, percent
from openmav.panels.base import Box
from openmav.panels.widgets.heat_grid import fitting
from openmav.record import Array

LEAST = 40  # cells


def _lists(adds: Array | None, sinks: Array | None) -> list[tuple[Array, str, str, str]]:
    """(values by layer, their name, a short one, their hue) of what is known."""
    lists = [(adds, "adds to the residual", "adds", "mlp"), (sinks, "looks at the first token", "first token", "attention")]
    return [(values, name, short, hue) for values, name, short, hue in lists if values is not None and np.isfinite(values).any()]


def rows_by_layer(adds: Array | None, sinks: Array | None) -> int:
    """Lines that all layers need, the blank one and the heading among them."""
    known = _lists(adds, sinks)
    return len(known[0][0]) + 2 if known else 0


def layer_lines_below(adds: Array | None, sinks: Array | None, box: Box, rows: int) -> list[Line]:
    """What each layer adds and how much of its attention rests on the first token; the least and the most where not all layers fit."""
    known, quiet = _lists(adds, sinks), ink(box.palette, "secondary")
    if not known or box.width < LEAST:
        return []
    if rows < rows_by_layer(adds, sinks):
        brief = [[Segment(_in_brief(values, (name, short), box.width), quiet)] for values, name, short, _ in known]
        return [[], *brief] if rows > len(brief) else []
    layers = len(known[0][0])
    wide = (box.width - 5) // len(known) - 2
    heading = "".join(f"  {fit(name, wide)}" for _, name, _, _ in known)
    lines: list[Line] = [[], [Segment(f"layer{heading}", quiet)]]
    for layer in reversed(range(layers)):
        line: Line = [Segment(f"{layer:>5}", quiet)]
        for values, _, _, hue in known:
            value, most = float(values[layer]), float(values[np.isfinite(values)].max())
            shown = bar(value / max(most, 1.0), box.longest(wide - 8)) if np.isfinite(value) else ""
            text = percent(value) if np.isfinite(value) else "none".rjust(7)
            line += [Segment(f"  {text} ", ink(box.palette, "text")), Segment(fit(shown, wide - 8), ink(box.palette, hue))]
        lines.append(line)
    return lines


def _in_brief(values: Array, names: Sequence[str], width: int) -> str:
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    least, most = (percent(float(values[at])).strip() for at in (low, high))
    ways = (" in layer", " in")
    texts = [f"{name}: {least} in layer {low} to {most}{way} {high}" for name in names for way in ways]
    return fit(fitting([*texts, f"{names[-1]}: most {most}, layer {high}"], width), width)
