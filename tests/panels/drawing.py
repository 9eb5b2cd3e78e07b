"""Shared by the tests of panels: views to draw, and the drawn text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from fakes import make_info, make_prompt, make_steps
from openmav import panels
from openmav.paint import Line, line_text, line_width
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.record import ModelInfo, Step
from openmav.settings.sampling import Sampling
from openmav.view import View
from openmav.view.options import AppOptions

SIZES = [(16, 3), (36, 9), (110, 30)]  # cells inside the frame


class OnView:
    """A panel with its data gathered from the view at each call: render(view, width, height) and so on, and whatever else it has."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def heading(self, view: View, width: int) -> str:
        return panels.draw(self.module, view, width, 1).title

    def note(self, view: View, width: int, height: int) -> str:
        return panels.draw(self.module, view, width, height).note

    def legend(self, view: View, width: int) -> Line | None:
        return panels.draw(self.module, view, width, 1).legend

    def render(self, view: View, width: int, height: int, gutter: bool = True) -> list[Line]:
        return list(panels.draw(self.module, view, width, height, gutter=gutter).lines)

    def pick(self, view: View, width: int, height: int, x: int, y: int, gutter: bool = True) -> View:
        if not hasattr(self.module, "pick"):
            return view
        picked = panels.pick(self.module, view, width, height, x, y, gutter=gutter)
        assert isinstance(picked, View)
        return picked


def panel(name: str) -> Any:
    return OnView(registry.load("panels", name))


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
    made = made if sampling is None else tuple(replace(step, sampling=sampling) for step in made)
    now = Snapshot(version=1, status="paused", info=info, prompt=make_prompt(), sampling=sampling or Sampling(), steps=made)
    view = View(options=options or AppOptions()).updated(now)
    return replace(view, **changes)  # type: ignore[arg-type]


def without_colour(view: View) -> View:
    return replace(view, theme="mono")


def draw(name: str, view: View, width: int = 60, height: int = 12, gutter: bool = True) -> list[str]:
    """What the panel says, a string a row; checks that no row leaves the box."""
    lines = panel(name).render(view, width, height, gutter)
    assert len(lines) <= height, "more rows than the box has"
    assert all(line_width(line) <= width for line in lines), "a row is wider than the box"
    return [line_text(line).rstrip() for line in lines]


def note(name: str, view: View, width: int = 60, height: int = 12) -> str:
    return str(panel(name).note(view, width, height))
