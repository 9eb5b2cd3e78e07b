"""The performance of the app itself: the time that drawing takes, and the memory of its processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from openmav.system.memory import resident_bytes
from openmav.view import View

SMOOTH = 0.2  # weight of the newest frame in the mean that is shown
LATELY = 3.0  # seconds that the speed of coming tokens is measured over
EVERY = 1.0  # seconds between two measurements of the memory


class Performance:
    """Keeps a running mean of the draw time. `engine` gives the process id of the model's process, None if there is none."""

    def __init__(self, engine: Callable[[], int | None]) -> None:
        self._engine = engine
        self._seconds: float | None = None
        self._memory: dict[str, int] = {}
        self._measured_at = -EVERY
        self._seen: deque[tuple[float, int]] = deque()  # when so many tokens had come

    def seen(self, view: View) -> View:
        """The view with the speed at which its tokens have come lately; None before a second of them."""
        now, count = time.monotonic(), len(view.steps)
        if not view.running or (self._seen and count < self._seen[-1][1]):
            self._seen.clear()
        self._seen.append((now, count))
        while now - self._seen[0][0] > LATELY:
            self._seen.popleft()
        began, before = self._seen[0]
        return replace(view, arrives=(count - before) / (now - began) if now - began > LATELY / 2 else None)

    def updated(self, view: View, seconds: float) -> View:
        """The view with draw time and memory after a frame that took `seconds`."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + SMOOTH * (seconds - before)
        if time.monotonic() - self._measured_at >= EVERY:
            self._measured_at = time.monotonic()
            engine = self._engine()
            measured = {"app": resident_bytes(), "engine": resident_bytes(engine) if engine is not None else None}
            self._memory = {name: size for name, size in measured.items() if size is not None}
        return replace(view, draw_seconds=self._seconds, memory=self._memory)
