"""One panel in its frame."""

from __future__ import annotations

from types import ModuleType

from textual import events

from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.tiles import draw_panel, ground
from openmav.apps.tui.widgets.lines import Lines
from openmav.apps.tui.widgets.messages import Clicked, Wheeled
from openmav.view import View


class PanelTile(Lines):
    """One panel in its frame, in the box that the layout gave it."""

    def __init__(self, name: str, module: ModuleType) -> None:
        super().__init__(id=f"panel-{name}", classes="panel")
        self.panel, self.module = name, module
        self.place: Tile | None = None
        self.display = False

    def move_to(self, place: Tile | None) -> None:
        """Moves the tile; None hides it."""
        if place == self.place:
            return
        self.place = place
        self.display = place is not None
        if place is not None:
            self.styles.offset = (place.x, place.y)
            self.styles.width, self.styles.height = place.width, place.height

    def show(self, view: View, focused: bool) -> None:
        if self.place is not None:
            self.show_lines(draw_panel(self.module, view, self.place, focused), self.place.width, ground(view))

    def on_click(self, event: events.Click) -> None:
        if self.place is not None:
            left = 1 if self.place.edges.left_open else 2
            self.post_message(Clicked(self.panel, event.x - left, event.y - 1))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(Wheeled(self.panel, -1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(Wheeled(self.panel, 1))
