"""One of a few words, in one line: the left and right keys, space and clicks go through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static


class Choice(Static, can_focus=True):
    """`choices` are {value: its word}; `value` is the chosen one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("right,space", "step(1)", show=False), Binding("left", "step(-1)", show=False)]

    class Changed(Message):
        """The user has chosen another one."""

        def __init__(self, control: Choice) -> None:
            super().__init__()
            self._control = control

        @property
        def control(self) -> Choice:
            return self._control

    def __init__(self, choices: Mapping[str, str], value: str, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._choices, self._value = choices, value

    @property
    def value(self) -> str:
        return self._value

    @value.setter
    def value(self, value: str) -> None:
        self._value = value
        self.refresh(layout=False)

    def offer(self, choices: Mapping[str, str]) -> None:
        """Another set of choices."""
        self._choices = choices
        self.refresh(layout=False)

    def render(self) -> Content:
        return Content(f"◂ {self._choices.get(self._value, self._value)} ▸")

    def action_step(self, by: int) -> None:
        values = list(self._choices)
        at = values.index(self._value) if self._value in values else -by
        self.value = values[(at + by) % len(values)]
        self.post_message(self.Changed(self))

    def on_click(self, event: events.Click) -> None:
        self.action_step(-1 if event.x < 2 else 1)
