"""Which panels the app shows: adding, removing, moving, resizing and maximising them, and the focus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import ModuleType

from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.controllers.context import NO_TOKEN, Context
from openmav.apps.tui.kinds import Kind, kind_of, kinds_of
from openmav.apps.tui.safe_panel import picked
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.view.options import LEAST, MOST, Size

STEP = 1.25  # a key press makes a panel so many times larger


class PanelsController:
    """Keeps the set of panels. `modules` and `kinds` hold them in their order.

    Raises UsageError for an unknown panel.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        options = context.view.options
        self.modules: dict[str, ModuleType] = {name: registry.load("panels", name) for name in options.panels}
        self.kinds: dict[str, Kind] = kinds_of(self.modules, options.sizes.get(options.layout, {}))
        self.places: dict[str, Tile] = {}  # of the panels that are visible
        self.focused = next(iter(self.modules))
        self.maximised = False  # the focused panel is the only one shown

    @property
    def focused_module(self) -> ModuleType:
        return self.modules[self.focused]

    @property
    def focused_place(self) -> Tile | None:
        return self.places.get(self.focused)

    def layer_rows(self) -> int:
        """Rows that the layer panels show; 0 where there are none."""
        rows = [place.inner[1] for name, place in self.places.items() if self.kinds[name].group == "layers"]
        return min(rows, default=0)

    # ---- which ----

    def show(
        self, names: Iterable[str], kinds: Mapping[str, Kind] | None = None, layout: str | None = None, *, rearranged: bool = True
    ) -> None:
        """Exactly these panels from now on. `kinds`: with these sizes; None: keep the sizes that the user gave them.

        `layout`: the layout that they are, `rearranged` if not quite; None: the one that was shown before.
        """
        names = list(dict.fromkeys(names))
        try:
            modules = {name: registry.load("panels", name) for name in names}
        except UsageError as error:
            self._context.notify(str(error))
            return
        before = self.kinds if kinds is None else kinds
        self.modules = modules
        self.kinds = {name: before.get(name) or kind_of(name, module) for name, module in modules.items()}
        self.places = {name: place for name, place in self.places.items() if name in modules}
        if self.focused not in modules:
            self.focused = names[0]
        self._rearranged(layout, rearranged)

    def add(self, name: str) -> None:
        self.focused = name
        self.show((*self.modules, name))

    def remove(self) -> None:
        """Removes the focused panel, unless it is the last."""
        if len(self.modules) == 1:
            self._context.notify("the last panel cannot be removed; the command palette adds others")
            return
        gone, names = self.focused, list(self.modules)
        at = names.index(gone)
        self.focused = names[at - 1 if at + 1 == len(names) else at + 1]
        self.show(name for name in names if name != gone)

    # ---- the focused one ----

    def focus(self, name: str) -> None:
        self.focused = name
        self._context.redraw()

    def focus_next(self, by: int) -> None:
        names = list(self.modules)
        if len(names) == 1:
            self._context.notify("this is the only panel; the command palette adds others")
            return
        self.focus(names[(names.index(self.focused) + by) % len(names)])

    def maximise(self) -> None:
        if len(self.modules) == 1 and not self.maximised:
            self._context.notify("this panel has the whole screen already")
            return
        self.maximised = not self.maximised
        self._context.redraw()

    def next_mode(self) -> None:
        """The next view of the focused panel, where it has several."""
        modes = getattr(self.focused_module, "MODES", ())
        if len(modes) < 2:
            self._context.notify("this panel has only one view")
        else:
            self._context.show(self._context.view.in_next_mode(self.focused, modes))
            if not self._context.view.steps:
                self._context.notify(f"{self._context.view.mode(self.focused, modes)} selected; {NO_TOKEN}")

    def click(self, name: str, x: int, y: int) -> None:
        """Focuses the panel and passes the click on to it."""
        if name not in self.modules:  # it has been removed meanwhile
            return
        context, place = self._context, self.places.get(name)
        self.focused = name
        if place is not None:
            context.view, failed = picked(self.modules[name], context.view, place, x, y)
            context.note = failed or context.note
        context.redraw()

    def _rearranged(self, layout: str | None = None, rearranged: bool = True) -> None:
        view = self._context.view
        self._context.view = replace(view, layout=view.layout if layout is None else layout, rearranged=rearranged)
        self._context.redraw()

    # ---- where ----

    def move(self, by: int) -> None:
        """Swaps the focused panel with its neighbour: the next one of its group, or in a grid the next of all."""
        names = list(self.modules)
        mine = self.kinds[self.focused].group
        movable = names if self._context.view.options.grid_rows else [name for name in names if self.kinds[name].group == mine]
        at = movable.index(self.focused) + by
        if not 0 <= at < len(movable):
            self._context.notify("this panel cannot move further")
            return
        here, there = names.index(self.focused), names.index(movable[at])
        names[here], names[there] = names[there], names[here]
        self.show(names)

    def resize(self, wider: int, taller: int) -> None:
        """Gives the focused panel more, or less, of the width of its row and of the height."""
        kind = self.kinds[self.focused]
        base = kind_of(self.focused, self.focused_module)
        weight = min(max(kind.weight * STEP**wider, base.weight * LEAST), base.weight * MOST)
        tall = min(max(kind.tall * STEP**taller, LEAST), MOST)
        before = self.places
        self.kinds = {**self.kinds, self.focused: replace(kind, weight=weight, tall=tall)}
        self._rearranged()
        if self.places == before:
            much = "large" if wider + taller > 0 else "small"
            where = "is as {} as it can be" if (weight, tall) == (kind.weight, kind.tall) else "cannot be made so {} here"
            self._context.notify(f"this panel {where.format(much)}")

    def size_of(self, panel: str) -> Size:
        """Width and height that the user gave the panel, as multiples of its own."""
        kind = self.kinds[panel]
        return round(kind.weight / kind_of(panel, self.modules[panel]).weight, 4), round(kind.tall, 4)
