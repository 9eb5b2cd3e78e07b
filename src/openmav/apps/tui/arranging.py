"""Which panels the app shows, and where: layouts switched live, panels added, removed, moved and resized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import ModuleType

from textual.app import App
from textual.containers import Container

from openmav import registry
from openmav.apps.options import LEAST, MOST, Size
from openmav.apps.tui.layout import Kind, kind_of, kinds_of
from openmav.apps.tui.widgets import PanelTile
from openmav.errors import UsageError
from openmav.panels._view import View

STEP = 1.25  # a key press makes a panel so many times larger


class Arranging(App[None]):
    """The part of the app that keeps the set of panels. `modules` and `kinds` hold them in their order."""

    modules: dict[str, ModuleType]
    kinds: dict[str, Kind]
    view: View
    focus_name: str
    note: str
    _saved_as = ""  # the name under which the layout was saved last

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
        panels = (*options.layouts[name], *options.own_panels)
        self.kinds, self.note = kinds_of({panel: registry.load("panels", panel) for panel in panels}, options.sizes.get(name, {})), ""
        self.show_panels(panels)

    def action_layout(self, index: int) -> None:
        names = list(self.view.options.layouts)
        if index < len(names):
            self.show_layout(names[index])

    def ask_layout_name(self) -> None:
        """The form that saves the panels, their order and their sizes under a name."""
        from openmav.apps.tui.forms import Field, FormScreen

        def done(values: dict[str, str] | None) -> None:
            if values is not None:
                self.save_layout(values["name"].strip())

        def check(values: Mapping[str, str]) -> str:
            name = values["name"].strip()
            return "" if name.isprintable() and name else "a layout needs a name"

        about = "The panels, their order and their sizes, as they are now; to be written to the config file."
        self.push_screen(FormScreen("Save this layout", [Field("name", "name", self._saved_as)], check, self.view.palette, about), done)

    def save_layout(self, name: str) -> None:
        """What is shown becomes a layout of that name, here and the next time."""
        options = self.view.options
        panels = tuple(panel for panel in self.modules if panel not in options.own_panels)
        sizes = {panel: size for panel in panels if (size := self._size_of(panel)) != (1.0, 1.0)}
        if options.save_layout is None:
            self.say("layouts can be saved from the command mav only")
            return
        try:
            path = options.save_layout(name, panels, sizes)
        except UsageError as error:
            self.say(str(error))
            return
        layouts, own = {**options.layouts, name: panels}, {**options.sizes, name: sizes}
        self._saved_as, self.view = name, replace(self.view, options=replace(options, layouts=layouts, sizes=own))
        self.say(f"saved as layout '{name}' in {path}")

    def _size_of(self, panel: str) -> Size:
        """Width and height that the reader gave the panel, as multiples of its own."""
        kind = self.kinds[panel]
        return round(kind.weight / kind_of(panel, self.modules[panel]).weight, 4), round(kind.tall, 4)

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
