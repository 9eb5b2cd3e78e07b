"""Which panels the app shows, and where: layouts switched live, panels added, removed, moved and resized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType

from textual.app import App
from textual.containers import Container

from openmav import registry
from openmav.apps.tui.layout import Kind, kind_of
from openmav.apps.tui.widgets import PanelTile
from openmav.errors import UsageError
from openmav.panels._view import View

STEP = 1.25  # a key press makes a panel so many times larger
LEAST, MOST = 0.25, 4.0  # of its size in the layout


class Arranging(App[None]):
    """The part of the app that keeps the set of panels. `modules` and `kinds` hold them in their order."""

    modules: dict[str, ModuleType]
    kinds: dict[str, Kind]
    view: View
    focus_name: str
    note: str

    def redraw(self) -> None:
        raise NotImplementedError

    def say(self, text: str) -> None:
        raise NotImplementedError

    def _want(self) -> None:
        """Asks the source for what the panels need now."""
        raise NotImplementedError

    # ---- which ----

    def show_panels(self, names: Iterable[str]) -> None:
        """Exactly these panels from now on; the source is asked for what they need. Sizes that the reader chose stay."""
        names = list(dict.fromkeys(names))
        try:
            self.modules = {name: registry.load("panels", name) for name in names}
        except UsageError as error:
            self.say(str(error))
            return
        self.kinds = {name: self.kinds.get(name) or kind_of(name, module) for name, module in self.modules.items()}
        body = self.screen_stack[0].query_one("#body", Container)
        there = {tile.panel for tile in body.query(PanelTile)}
        body.mount_all(PanelTile(name, module) for name, module in self.modules.items() if name not in there)
        if self.focus_name not in self.modules:
            self.focus_name = names[0]
        self._want()
        self.redraw()

    def show_layout(self, name: str) -> None:
        """The panels of a layout, in the sizes that it gives them, and the reader's own panels beside them."""
        options = self.view.options
        self.kinds, self.note = {}, ""
        self.show_panels((*options.layouts[name], *options.own_panels))

    def action_layout(self, index: int) -> None:
        names = list(self.view.options.layouts)
        if index < len(names):
            self.show_layout(names[index])

    def add_panel(self, name: str) -> None:
        self.focus_name = name
        self.show_panels((*self.modules, name))

    def action_remove_panel(self) -> None:
        """The focused panel goes; the last one stays."""
        if len(self.modules) == 1:
            self.say("the last panel stays; the command palette adds others")
            return
        gone, names = self.focus_name, list(self.modules)
        at = names.index(gone)
        self.focus_name = names[at - 1 if at + 1 == len(names) else at + 1]
        self.show_panels(name for name in names if name != gone)

    # ---- where ----

    def action_move_panel(self, by: int) -> None:
        """The focused panel changes places with its neighbour: the next one of its kind, or in a grid the next one at all."""
        names = list(self.modules)
        mine = self.kinds[self.focus_name].group
        movable = names if self.view.options.grid_rows else [name for name in names if self.kinds[name].group == mine]
        at = movable.index(self.focus_name) + by
        if not 0 <= at < len(movable):
            self.say("there is no place further on")
            return
        here, there = names.index(self.focus_name), names.index(movable[at])
        names[here], names[there] = names[there], names[here]
        self.show_panels(names)

    def action_resize_panel(self, wider: int, taller: int) -> None:
        """The focused panel takes more, or less, of its row and of the rows."""
        kind = self.kinds[self.focus_name]
        base = kind_of(self.focus_name, self.modules[self.focus_name])
        weight = min(max(kind.weight * STEP**wider, base.weight * LEAST), base.weight * MOST)
        tall = min(max(kind.tall * STEP**taller, LEAST), MOST)
        self.kinds = {**self.kinds, self.focus_name: replace(kind, weight=weight, tall=tall)}
        self.redraw()
