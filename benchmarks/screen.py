"""What drawing costs: a frame of each panel, a whole tick of the app, a key until it shows, and the speed kept with each layout shown."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType

import torch
from textual import events

from common import DEMO, ROOT, Counts, Figure, Section, median, note, ratio, spread, take_turns
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.layout import Tile
from openmav.apps.tui.tiles import draw_panel
from openmav.backends.base import LoadOptions
from openmav.backends.transformers import backend
from openmav.engine import EngineSource
from openmav.generation.session import Session
from openmav.panels import needs
from openmav.plugins import registry
from openmav.protocol.commands import Advance
from openmav.protocol.snapshot import Snapshot
from openmav.settings import CORE_MEASURES, Settings
from openmav.view import View
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

sys.path.insert(0, str(ROOT / "tests"))
from everything import WholeSource, whole_steps
from fakes import make_info, make_prompt

SIZE = (160, 45)
MEDIAN_MS, WORST_MS = 16.0, 33.0  # CPU of one frame
KEY_MS = 100.0  # from a key to the drawn screen, while the model generates at full speed
KEEPS = 0.9  # of the headless session's speed
LENS_PANEL = "logit_lens"
DRAW_HOW = (
    "CPU time of a whole frame (heading, note, legend, rows) of one panel that has all of {0}x{1} to itself: 30 layers, 9 heads, every "
    "measure, 400 tokens; the median of {2} frames, after one that fills the caches. The tick is what the app does for a new token with "
    "the overview shown, compositor included."
)
KEY_HOW = (
    "The app with the demo model in its engine process, generating without pause, at {0}x{1} without a terminal: from a key that walks "
    "through the tokens until the changed screen has been composed; {2} keys."
)
WANT_HOW = (
    "The demo model's session in this process with what the panels of each layout want, against the same session with the default "
    "measures, which are those of a run without a screen; then the lens panel beside the overview, and the overview without it: a panel "
    "that is not shown is not computed. CPU time on one thread, {0} rounds of {1} tokens that take turns."
)


def run(counts: Counts) -> list[Section]:
    frames = 3 if counts.rounds == 1 else 9
    note("screen")
    drawn = Section("Drawing", DRAW_HOW.format(*SIZE, frames), [*_panels(frames), asyncio.run(_tick(frames))])
    note("screen: keys")
    keys = 4 if counts.rounds == 1 else 25
    key = Section("From a key to the screen", KEY_HOW.format(*SIZE, keys), [asyncio.run(_key(keys))])
    note("screen: layouts")
    rounds, tokens = counts.rounds, max(counts.tokens, 8)
    wanted = Section("What a layout's panels cost the model", WANT_HOW.format(rounds, tokens), _layouts(rounds, tokens))
    return [drawn, key, wanted]


# ---- frames --------------------------------------------------------------------------------------------------------------


def _view() -> View:
    info = make_info(30, 9)
    steps = whole_steps(400, info)
    now = Snapshot(version=1, status="running", info=info, prompt=make_prompt(), steps=steps)
    return View(options=AppOptions()).updated(now)


def _cpu_ms(work: Callable[[], object], times: int) -> float:
    """The median CPU time of a call, in ms, after one that is not counted."""
    work()
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken) * 1000


def _panels(frames: int) -> list[Figure]:
    view, place = _view(), Tile("", 0, 0, SIZE[0], SIZE[1] - 2)
    found: dict[str, float] = {}
    for name in registry.names("panels"):
        module = registry.load("panels", name)
        for mode in getattr(module, "MODES", ("",)):
            shown = replace(view, modes={name: mode})
            found[f"{name}, {mode}" if mode else name] = _cpu_ms(partial(_frame, module, shown, place), frames)
    worst = max(found, key=found.__getitem__)
    return [
        *(Figure(name, f"{took:.1f} ms") for name, took in sorted(found.items(), key=lambda one: -one[1])),
        Figure("the median panel", f"of {len(found)} panels and kinds", median(list(found.values())), most=MEDIAN_MS, unit=" ms"),
        Figure("the worst panel", worst, found[worst], most=WORST_MS, unit=" ms"),
    ]


def _frame(module: ModuleType, view: View, place: Tile) -> None:
    draw_panel(module, view, place, True)


async def _tick(frames: int) -> Figure:
    """CPU time for a new token: from the source to the composed screen, all panels of the overview."""
    info = make_info(30, 9)
    source = WholeSource(whole_steps(400, info), info, limit=10_000)
    app = MavApp(source, AppOptions())
    taken = []
    async with app.run_test(size=SIZE):
        for _ in range(frames + 1):
            source.send(Advance(1))
            began = time.process_time()
            app.tick()
            app.screen._compositor.render_strips()
            taken.append(1000 * (time.process_time() - began))
    return Figure("a whole tick, overview", f"{len(taken) - 1} new tokens", statistics.median(taken[1:]), unit=" ms")


# ---- keys ----------------------------------------------------------------------------------------------------------------


async def _key(keys: int) -> Figure:
    source = EngineSource(Settings(model=DEMO.name, max_new_tokens=1500, refresh_rate=0.0))
    taken = []
    try:
        app = MavApp(source, AppOptions())
        async with app.run_test(size=SIZE) as pilot:
            while len(source.snapshot().steps) < 20:
                if error := source.snapshot().error:
                    raise RuntimeError(error)
                await pilot.pause(0.05)
            for at in range(keys):
                taken.append(await _press(app, at))
                await asyncio.sleep(0.03)
            still = source.snapshot().status == "running"
    finally:
        source.close()
    measured = f"{min(taken):.0f} to {max(taken):.0f} ms{'' if still else ', THE MODEL HAD ENDED'}"
    return Figure("a key until its screen is composed", measured, median(taken), most=KEY_MS, unit=" ms")


async def _press(app: MavApp, at: int) -> float:
    """Milliseconds from a key, as the terminal's driver gives it to the app, until the cursor has moved and the screen is composed."""
    key, before, began = ("left", "home", "right", "end")[at % 4], app.view.cursor, time.perf_counter()
    app.post_message(events.Key(key, None))
    while app.view.cursor == before and time.perf_counter() - began < 2:
        await asyncio.sleep(0)
    app.screen._compositor.render_strips()
    return 1000 * (time.perf_counter() - began)


# ---- what is wanted --------------------------------------------------------------------------------------------------------


def _layouts(rounds: int, tokens: int) -> list[Figure]:
    torch.set_num_threads(1)
    model = backend.load(DEMO.name, LoadOptions(dtype="float32", device="cpu"))
    model.end_ids = frozenset()
    overview = LAYOUTS["overview"]
    wanted = {name: needs(panels) for name, panels in LAYOUTS.items()}
    wanted |= {"headless": frozenset(CORE_MEASURES), "with": needs((*overview, LENS_PANEL)), "without": needs(overview)}
    sides = {name: partial(_seconds, model, measures, tokens) for name, measures in wanted.items()}
    take_turns(1, sides)
    found = take_turns(rounds, sides)
    figures = [_kept(f"layout {name}", found[name], found["headless"], KEEPS) for name in LAYOUTS]
    figures.append(_kept("overview and lens panel, against headless", found["with"], found["headless"], None))
    return [*figures, _kept("the lens panel taken away, against headless", found["without"], found["headless"], KEEPS)]


def _kept(what: str, taken: list[float], base: list[float], least: float | None) -> Figure:
    shares = [b / t for b, t in zip(base, taken, strict=True)]
    measured = f"{1 / median(taken):.0f} tok/s against {1 / median(base):.0f} tok/s, ratio {spread(shares)}"
    return Figure(what, measured, ratio(base, taken), least=least)


def _seconds(model: backend.TransformersBackend, measures: frozenset[str], tokens: int) -> float:
    """CPU seconds a token, on one thread: what another process takes does not count."""
    settings = Settings(model=DEMO.name, prompt="It is a truth universally acknowledged, that", measures=tuple(sorted(measures)))
    session = Session(model, replace(settings, max_new_tokens=1 << 20))
    session.want(sorted(measures), session.info.layers - 1)  # as the app asks: what costs too much for all layers, for the selected one
    session.prefill()
    session.step()
    began = time.process_time()
    while len(session.steps) <= tokens:
        session.burst(most=1 + tokens - len(session.steps))  # as the engine does
    return (time.process_time() - began) / tokens
