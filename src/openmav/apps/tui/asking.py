"""Keys that ask why: which tokens the shown prediction depends on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from textual.app import App

from openmav.explained import METHODS
from openmav.panels._view import View
from openmav.source import Attribute, Command, Source

PANEL = "input_attribution"


class Asking(App[None]):
    """The part of the app that asks for attributions. The panel that shows them comes by itself."""

    view: View
    source: Source
    modules: dict[str, ModuleType]

    def say(self, text: str) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def add_panel(self, name: str) -> None:
        raise NotImplementedError

    def _send(self, command: Command) -> bool:
        raise NotImplementedError

    def _when_paused(self, todo: Callable[[], None]) -> None:
        raise NotImplementedError

    def action_attribute(self) -> None:
        """Of the selected candidate, else of the token that stands there; asked again, by the next method."""
        self._ask_why(None)

    def action_attribute_minus(self) -> None:
        """Of the token that stands there, minus the selected candidate."""
        step, row = self.view.step, self.view.candidate
        other = int(step.candidates.token_ids[row]) if step is not None and row is not None else None
        if step is None or other is None or other == step.token_id:
            self.say("select another candidate first (up and down keys): I shows why the chosen token and not that one")
            return
        self._ask_why(other)

    def _ask_why(self, minus: int | None) -> None:
        step, row = self.view.step, self.view.candidate
        if "Attribute" not in self.source.can:
            self.say("this source cannot say which tokens a prediction depends on")
            return
        if step is None:
            self.say("there is no token yet; . makes one")
            return
        target = step.token_id if minus is not None or row is None else int(step.candidates.token_ids[row])
        command = Attribute(self._method((step.index, target, minus)), step.index, target, minus)
        if PANEL not in self.modules:
            self.add_panel(PANEL)
        self._when_paused(lambda: self._attribute(command))
        self.tick()

    def _attribute(self, command: Attribute) -> None:
        self._send(command)

    def _method(self, asked: tuple[int, int, int | None]) -> str:
        """The next one where this was asked last, the last one for another question, the first one to begin with."""
        last = self.view.attribution
        if last is None:
            return METHODS[0]
        return METHODS[(METHODS.index(last.method) + 1) % len(METHODS)] if last.of == asked else last.method
