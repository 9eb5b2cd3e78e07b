"""Shared by the tests of panels: views to draw, and the drawn text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from fakes import make_info, make_prompt, make_steps
from openmav import registry
from openmav.apps.options import AppOptions
from openmav.paint import PALETTES, line_text, line_width
from openmav.panels._view import View
from openmav.record import ModelInfo, Step
from openmav.sampling import Sampling
from openmav.source import Snapshot

SIZES = [(16, 3), (36, 9), (110, 30)]  # cells inside the frame


def panel(name: str) -> ModuleType:
    return registry.load("panels", name)


def make_view(
    steps: Sequence[Step] | int = 12,
    info: ModelInfo | None = None,
    sampling: Sampling | None = None,
    options: AppOptions | None = None,
    **changes: object,
) -> View:
    """A view at the newest of the steps."""
    info = info or make_info()
    made = make_steps(steps, info) if isinstance(steps, int) else tuple(steps)
    now = Snapshot(version=1, status="paused", info=info, prompt=make_prompt(), sampling=sampling or Sampling(), steps=made)
    view = View(options=options or AppOptions()).updated(now)
    return replace(view, **changes)  # type: ignore[arg-type]


def without_colour(view: View) -> View:
    return replace(view, palette=PALETTES["mono"])


def draw(name: str, view: View, width: int = 60, height: int = 12) -> list[str]:
    """What the panel says, a string a row; checks that no row leaves the box."""
    lines = panel(name).render(view, width, height)
    assert len(lines) <= height, "more rows than the box has"
    assert all(line_width(line) <= width for line in lines), "a row is wider than the box"
    return [line_text(line).rstrip() for line in lines]


def note(name: str, view: View, width: int = 60, height: int = 12) -> str:
    return str(panel(name).note(view, width, height))
