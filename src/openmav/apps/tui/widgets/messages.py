"""Messages from widgets to the app; rare, never one a token."""

from __future__ import annotations

from textual.message import Message


class Clicked(Message):
    """A click inside of a panel's frame, in cells from its upper left corner."""

    def __init__(self, name: str, x: int, y: int) -> None:
        super().__init__()
        self.name, self.x, self.y = name, x, y


class LayoutChosen(Message):
    """A click on the name of a layout."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Wheeled(Message):
    """The wheel turned over a panel; `by` is -1 up, 1 down."""

    def __init__(self, name: str, by: int) -> None:
        super().__init__()
        self.name, self.by = name, by
