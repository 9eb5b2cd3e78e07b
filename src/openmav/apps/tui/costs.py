"""What the app itself costs: the time that drawing takes, and the memory of its processes."""

from __future__ import annotations

import time
from dataclasses import replace

from openmav.memory import resident_bytes
from openmav.panels._view import View

SMOOTH = 0.2  # weight of the newest frame in the mean that is shown
EVERY = 1.0  # seconds between two looks at the memory


class Costs:
    """Keeps a running mean of the time of a frame. `engine` is the process id of the model's process, None where there is none."""

    def __init__(self, engine: int | None) -> None:
        self._engine = engine
        self._seconds: float | None = None
        self._memory: dict[str, int] = {}
        self._looked = -EVERY

    def noted(self, view: View, seconds: float) -> View:
        """The view with what is known after a frame that took `seconds`."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + SMOOTH * (seconds - before)
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            asked = {"app": resident_bytes(), "engine": resident_bytes(self._engine) if self._engine is not None else None}
            self._memory = {name: held for name, held in asked.items() if held is not None}
        return replace(view, draw_seconds=self._seconds, memory=self._memory)
