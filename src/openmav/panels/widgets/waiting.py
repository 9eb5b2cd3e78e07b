"""What is going on before the first token, or amid a run: in words, and as a bar where it is known how far."""

from __future__ import annotations

from rich.segment import Segment

from openmav.paint import Line, fit, ink, one_line
from openmav.panels.base import Box
from openmav.view import View


def waiting(view: View) -> str | None:
    """What the user waits for; None for nothing."""
    what = {"loading": "loading the model", "prefill": "reading the prompt"}.get(view.status)
    return None if what is None else one_line(view.progress) or what


def waiting_lines(what: str | None, fraction: float | None, box: Box) -> list[Line]:
    """`what` is going on, and the `fraction` of it that is done; no lines for None."""
    if what is None:
        return []
    lines: list[Line] = [[Segment(fit(what, box.width).rstrip(), ink(box.palette, "text"))]]
    if fraction is not None:
        longest = max(1, min(box.width - 8, 48))
        done = round(min(max(fraction, 0.0), 1.0) * longest)
        lines.append(
            [
                Segment("━" * done, ink(box.palette, "accent")),
                Segment("─" * (longest - done), ink(box.palette, "frame")),
                Segment(f" {fraction * 100:4.0f} %", ink(box.palette, "secondary")),
            ]
        )
    return lines
