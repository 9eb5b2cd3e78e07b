"""Shared by the tests of the app: the app around a made-up source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fakes import ScriptedSource, make_info, make_steps
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.widgets.panel_tile import PanelTile
from openmav.protocol.source import Source
from openmav.view.options import AppOptions

SMALL, COMPACT, HOME = (60, 16), (80, 24), (160, 45)


def make_app(
    steps: int = 12, source: Source | None = None, layers: int = 30, options: AppOptions | None = None, **changes: object
) -> MavApp:
    """The app on a source that holds some steps and is paused."""
    info = make_info(layers, 9)
    made = source or ScriptedSource(make_steps(steps, info), info, **changes)  # type: ignore[arg-type]
    return MavApp(made, options or AppOptions())


def sent(app: MavApp) -> list[object]:
    """The commands that reached the source, but for what is wanted and for previews, which the app asks for by itself."""
    return [command for command in app.source.sent if type(command).__name__ not in ("Want", "PreviewSampling")]  # type: ignore[attr-defined]


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until it holds, however busy the machine is. Raises AssertionError where it does not come to hold."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.02)


def screen_text(app: MavApp) -> str:
    """All that stands on the screen."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    assert len(lines) == height
    assert all(line.cell_length == width for line in lines)
    return "\n".join(line.text for line in lines)


def shown(app: MavApp) -> list[str]:
    """Names of the panels that can be seen."""
    return [tile.panel for tile in app.query(PanelTile) if tile.display]


def tile(app: MavApp, name: str) -> PanelTile:
    return app.query_one(f"#panel-{name}", PanelTile)
