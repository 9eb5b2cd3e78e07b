"""The generated text as it comes, for a pipe or a terminal without the app."""

from __future__ import annotations

from collections.abc import Callable

from openmav.apps.text.summary import summary
from openmav.conditions.breakpoints import Hit
from openmav.record import ENDS, EndReason, ModelInfo, Prompt, Step
from openmav.settings import Settings
from openmav.system.terminal import neutral


class Plain:
    """Writes each token's text at once, special tokens aside; the end is a newline and, through `say`, a summary."""

    def __init__(self, write: Callable[[str], None], say: Callable[[str], None], *, terminal: bool) -> None:
        self._write, self._say, self._terminal = write, say, terminal
        self._open = False  # a line has been begun

    def begin(self, info: ModelInfo, prompt: Prompt, settings: Settings) -> None:
        """Through `say`, what a reader should know of this model and prompt; the text begins with the first token."""
        for note in info.notes:
            self._say(f"mav: note: {note}")

    def step(self, step: Step) -> None:
        if step.text and not step.special:
            self._write(neutral(step.text) if self._terminal else step.text)
            self._open = not step.text.endswith("\n")

    def end(self, reason: EndReason, steps: list[Step], seconds: float, hit: Hit | None = None) -> None:
        self._write("\n")
        self._say(f"{summary(steps)} · {hit if reason == 'break' else ENDS[reason]}")

    def fail(self) -> None:
        if self._open and self._terminal:
            self._write("\n")
