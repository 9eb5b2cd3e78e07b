"""Pictures of the screen: they change only when somebody wants them to (pytest --snapshot-update)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from driving import COMPACT, HOME, SMALL, make_app

from everything import whole_steps
from fakes import HOSTILE, ScriptedSource, make_info, make_step, make_steps, sampled, with_nan
from openmav.apps.tui.app import MavApp
from openmav.apps.tui.performance import Performance
from openmav.record import Step
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

Compare = Callable[..., bool]


def hostile() -> MavApp:
    return make_app(source=ScriptedSource(make_steps(30, tokens=HOSTILE), make_info()))


def loading() -> MavApp:
    app = make_app(0, status="loading", prompt=None, progress="reading weights", fraction=0.4)
    app.source.history.update(info=None)  # type: ignore[attr-defined]
    return app


def odd_numbers() -> MavApp:
    info = make_info(12, 8, missing={"mlp_norm": {3: "no MLP"}, "attention_entropy": {4: "state space", 7: "state space"}})
    steps = [*make_steps(9, info), with_nan(make_step(9, info=info), "residual_norm", 6)]
    return make_app(source=ScriptedSource(steps, info))


def drawn(steps: Sequence[Step]) -> list[Step]:
    """The steps as the sampling of these screens chose them."""
    return [replace(step, sampling=sampled()) for step in steps]


def sampling() -> MavApp:
    info = make_info(6, 8)
    return make_app(source=ScriptedSource(drawn(make_steps(30, info)), info, sampling=sampled()))


def focus() -> MavApp:
    info = make_info(30, 8)
    source = ScriptedSource(whole_steps(48, info), info, sampling=sampled())
    return make_app(source=source, options=AppOptions(panels=LAYOUTS["focus"]))


SCREENS: dict[str, tuple[Callable[[], MavApp], tuple[int, int], list[str]]] = {
    "overview_home": (lambda: make_app(118), HOME, []),
    "overview_compact": (lambda: make_app(118), COMPACT, []),
    "focus_home": (focus, (150, 45), ["left", "left", "down", "down"]),
    "focus_compact": (focus, COMPACT, ["left", "left"]),
    "search": (focus, COMPACT, ["slash", "t", "h", "e"]),
    "small": (lambda: make_app(118), SMALL, ["tab"]),
    "scrubbed_with_candidate": (lambda: make_app(60), (120, 36), ["left", "left", "down", "down"]),
    "light": (lambda: make_app(60, options=AppOptions(theme="light")), (120, 36), []),
    "contrast": (lambda: make_app(60, options=AppOptions(theme="contrast")), (120, 36), []),
    "loading": (loading, COMPACT, []),
    "failed": (lambda: make_app(0, status="failed", error="no model in 'x': give a folder or a hub name"), COMPACT, []),
    "hostile": (hostile, (120, 36), []),
    "odd_numbers": (odd_numbers, (120, 36), []),
    "small_model_sampled": (sampling, HOME, []),
    "entropy_alone": (lambda: make_app(10), (120, 36), ["tab"] * 4 + ["m"]),
    "help": (lambda: make_app(10), (100, 30), ["question_mark"]),
    "grid": (lambda: make_app(30, options=AppOptions(grid_rows=4)), HOME, []),
}


def in_layout(name: str) -> MavApp:
    """A layout on a run that has all that there is to measure."""
    info = make_info(12, 8)
    source = ScriptedSource(drawn(whole_steps(48, info)), info, sampling=sampled())
    return make_app(source=source, options=AppOptions(panels=LAYOUTS[name], aggregation="l2"))


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("overview", "minimal")])
def test_layout(name: str, snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Performance, "updated", lambda self, view, seconds: replace(view, draw_seconds=0.0123, memory={"app": 80_000_000}))
    assert snap_compare(in_layout(name), press=["left", "left"], terminal_size=HOME)


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, snap_compare: Compare) -> None:
    make, size, keys = SCREENS[name]
    assert snap_compare(make(), press=keys, terminal_size=size)


def test_no_colour(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(make_app(60, options=AppOptions(color=False)), terminal_size=(120, 36))
