"""A run as JSON lines, written as it goes; openmav/record/lines.py has what is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openmav.conditions.breakpoints import Hit
from openmav.record import EndReason, ModelInfo, Prompt, Step
from openmav.record.lines import end_line, header, step_line, write_line
from openmav.settings import Settings


class JsonLines:
    """Writes each line whole and at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._info: ModelInfo | None = None

    def begin(self, info: ModelInfo, prompt: Prompt, settings: Settings) -> None:
        self._info = info
        self._line(header(info, prompt, settings))

    def step(self, step: Step) -> None:
        assert self._info is not None, "begin comes first"
        self._line(step_line(step, self._info))

    def end(self, reason: EndReason, steps: list[Step], seconds: float, hit: Hit | None = None) -> None:
        self._line(end_line(reason, len(steps), seconds, None if hit is None else (hit.text, hit.measured)))

    def fail(self) -> None:
        """A run that failed has no end line."""

    def _line(self, content: dict[str, Any]) -> None:
        self._write(write_line(content))
