"""More keys and clicks than the app can process: late ones are dropped, so that the app can always be quit at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from textual import events

MANY, WITHIN = 100, 2.0  # so many inputs within so many seconds are a flood; nobody types as fast
LATE = 0.1  # seconds after which an input of a flood no longer counts


class Flood:
    """Decides which inputs are dropped. `leaving`: the keys that quit or close something."""

    def __init__(self, leaving: Collection[str]) -> None:
        self._leaving = frozenset(leaving)
        self._arrivals: deque[float] = deque(maxlen=MANY)
        self._left = 0.0  # when the last of the leaving keys arrived

    def arrive(self, event: events.InputEvent) -> None:
        """Records an input when the terminal sends it."""
        self._arrivals.append(event.time)
        if isinstance(event, events.Key) and event.key in self._leaving:
            self._left = event.time

    def drops(self, event: events.InputEvent, now: float, writing: bool) -> bool:
        """Whether this one is too late. `writing`: into a form, whose text is kept unless the form is closed anyway."""
        flood = len(self._arrivals) == MANY and self._arrivals[-1] - self._arrivals[0] < WITHIN
        if not flood or now - event.time < LATE or (isinstance(event, events.Key) and event.key in self._leaving):
            return False
        return not writing or event.time < self._left
