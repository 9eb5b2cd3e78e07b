"""More input than the app can follow: it is left at once all the same, and nothing piles up."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from driving import COMPACT, make_app, until
from textual import events
from textual.app import App

KEYS = ("full_stop", "space", "left", "right", "down", "enter", "b", "f", "v", "m", "tab", "plus", "left_square_bracket", "4", "2")
FORMS = ("e", "w", "p", "k", "g", "x", "question_mark")


def send(app: App[None], message: events.Event) -> None:
    """As the terminal's driver does."""
    assert app._driver is not None
    app._driver.send_message(message)


def storm(app: App[None], count: int, keys: tuple[str, ...], seed: int) -> None:
    rng = random.Random(seed)
    for number in range(count):
        if number % 7 == 0:
            send(app, events.MouseScrollDown(None, rng.randrange(80), rng.randrange(24), 0, 1, 0, False, False, False))
        elif number % 101 == 0:
            send(app, events.Paste("some\ntext"))
        else:
            key = rng.choice(keys)
            send(app, events.Key(key, key if len(key) == 1 else None))


async def quits_after(app: App[None], *keys: str) -> float:
    """Seconds of the processor until the app has gone after the keys; on a busy machine that is later."""
    began = time.process_time()
    for key in keys:
        send(app, events.Key(key, key if len(key) == 1 else None))
    await until(lambda: not app.is_running)
    return time.process_time() - began


@pytest.mark.parametrize(
    ("keys", "leave"), [(KEYS, ("q",)), ((*KEYS, *FORMS), ("escape", "escape", "escape", "q")), (KEYS, ("ctrl+c", "ctrl+c"))]
)
@pytest.mark.parametrize("count", [300, 20_000])
async def test_it_is_left_within_a_second_of_a_storm(keys: tuple[str, ...], leave: tuple[str, ...], count: int) -> None:
    app = make_app(12)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.pause()
        storm(app, count, keys, seed=count)
        await pilot.pause(0.05)
        assert await quits_after(app, *leave) < 1.0
    assert app._exception is None


async def test_memory_stays_flat_and_late_keys_are_no_longer_obeyed() -> None:
    app = make_app(12)
    async with app.run_test(size=COMPACT) as pilot:
        storm(app, 2_000, KEYS, seed=1)
        await pilot.pause(1)
        tracemalloc.start()
        storm(app, 20_000, KEYS, seed=2)
        await pilot.pause(1)
        try:
            await until(lambda: tracemalloc.get_traced_memory()[0] < 20e6)
        finally:
            tracemalloc.stop()
        await pilot.press("end")  # and it still answers
        assert app.is_running


async def test_keys_that_come_one_by_one_all_count() -> None:
    app = make_app(0)
    async with app.run_test(size=COMPACT) as pilot:
        for _ in range(150):
            await pilot.press("full_stop")
        assert len(app.view.steps) == 150
