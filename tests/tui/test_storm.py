"""A random storm of keys, clicks, wheels, resizes and tokens never breaks the app, and it can always be left.

The same storms every time; MAV_STORMS=1000 makes as many others, for a long night.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from textual import events
from textual.pilot import OutOfBounds, Pilot

from everything import WholeSource, whole_steps
from fakes import HOSTILE, make_info
from openmav.apps.tui import keys as table
from openmav.apps.tui.app import MavApp
from openmav.plugins import registry
from openmav.view.options import AppOptions

STORMS = int(os.environ.get("MAV_STORMS", "0"))
pytestmark = [pytest.mark.storm, pytest.mark.timeout(900 + 60 * STORMS)]
LENGTH = 150  # events of a storm
LEAVING = {"q", "ctrl+c", "ctrl+z"}  # these end the storm, or the test
KEYS = sorted({key for row in table.KEYS for key in row.keys.split(",")} - LEAVING)
SIZES = [(1, 1), (20, 5), (60, 16), (72, 20), (80, 24), (81, 40), (160, 45), (240, 70)]


@dataclass(frozen=True)
class Event:
    """Something that happens to the app: a key, a click or a wheel at a place, a size, or so many tokens."""

    what: str
    key: str = ""
    x: int = 0
    y: int = 0
    count: int = 1


def _events() -> st.SearchStrategy[Event]:
    places = {"x": st.integers(0, 239), "y": st.integers(0, 69)}
    keys = st.builds(Event, st.just("key"), st.sampled_from([*KEYS, "ctrl+p", "w", "1", "é"]))
    mouse = st.builds(Event, st.sampled_from(["click", "wheel up", "wheel down"]), **places)
    sizes = st.sampled_from(SIZES).map(lambda size: Event("size", x=size[0], y=size[1]))
    tokens = st.builds(Event, st.just("tokens"), count=st.integers(1, 4))
    return st.one_of(keys, keys, keys, mouse, mouse, sizes, tokens)


async def _happens(pilot: Pilot[None], event: Event) -> None:
    app = pilot.app
    assert isinstance(app, MavApp)
    match event.what:
        case "key":
            await pilot.press(event.key)
        case "size":
            await pilot.resize_terminal(event.x, event.y)
        case "tokens":
            for _ in range(event.count):
                app.source.beat()  # type: ignore[attr-defined]
            app.tick()
        case _:
            await _mouse(pilot, event)


async def _mouse(pilot: Pilot[None], event: Event) -> None:
    """A click or a turn of the wheel somewhere on the screen."""
    at = event.x % max(pilot.app.size.width, 1), event.y % max(pilot.app.size.height, 1)
    if event.what == "click":
        try:
            await pilot.click(offset=at)
        except OutOfBounds:  # the terminal became smaller just now
            await pilot.pause()
        return
    turned = events.MouseScrollUp if event.what == "wheel up" else events.MouseScrollDown
    app = pilot.app
    app.screen._forward_event(turned(None, *at, 0, 1 if turned is events.MouseScrollDown else -1, 0, False, False, False, *at))
    await pilot.pause()


async def _storm(storm: list[Event], size: tuple[int, int], panels: tuple[str, ...], layers: int) -> None:
    info = make_info(layers, 4)
    source = WholeSource(whole_steps(3, info, HOSTILE), info, limit=60, tokens=HOSTILE)
    app = MavApp(source, AppOptions(panels=panels))
    async with app.run_test(size=size) as pilot:
        await pilot.press("space")
        for event in storm:
            await _happens(pilot, event)
            if not app.is_running:  # the command palette can quit
                return
        await _leave(pilot)
    assert app.return_code in (0, None)


async def _leave(pilot: Pilot[None]) -> None:
    """Out of whatever is open, then quit, as a reader would."""
    for _ in range(4):
        await pilot.press("escape")
    await pilot.press("q")
    await pilot.pause()
    assert not pilot.app.is_running


@settings(
    max_examples=STORMS or 14,
    derandomize=not STORMS,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink] if STORMS else [Phase.generate],  # to make a storm smaller takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)
@given(
    storm=st.lists(_events(), min_size=LENGTH, max_size=LENGTH),
    size=st.sampled_from(SIZES[2:]),
    panels=st.lists(st.sampled_from(registry.names("panels")), min_size=1, max_size=8, unique=True).map(tuple),
    layers=st.sampled_from([2, 30]),
)
def test_no_storm_breaks_it(
    storm: list[Event], size: tuple[int, int], panels: tuple[str, ...], layers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("saved"))  # for the key that saves the screen
    try:
        asyncio.run(_storm(storm, size, panels, layers))
    finally:
        os.chdir(before)
