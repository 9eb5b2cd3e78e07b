"""The base class of all screens over the app, and the fields of a form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

T = TypeVar("T")


class Modal(ModalScreen[T]):
    """A form, a list or a page over the app. It closes once: keys and clicks that arrive afterwards find it not `is_active`."""

    @property
    def is_active(self) -> bool:
        """Whether it is the screen in front, of an app that does not end: an ending app removes the widgets before the timers."""
        return super().is_active and self.app.is_running

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Close with this result; does nothing if it is closed already."""
        return super().dismiss(result) if self.is_active else AwaitComplete()


@dataclass(frozen=True)
class Field:
    """One line of a form."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    lines: bool = False  # it may have line breaks
    choices: tuple[tuple[str, str], ...] = ()  # (value, what it means), to be picked from a list and edited
