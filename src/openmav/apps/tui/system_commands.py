"""The commands of the command palette. Imported when it is first opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Protocol

from textual.app import SystemCommand

from openmav.apps.tui import keys
from openmav.apps.tui.controllers.display import DisplayController
from openmav.apps.tui.controllers.layouts import LayoutsController
from openmav.apps.tui.controllers.model import ModelController
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.controllers.sweep import SweepController
from openmav.apps.tui.tiles import THEMES
from openmav.errors import UsageError
from openmav.paint import PALETTES, one_line
from openmav.plugins import registry
from openmav.plugins.summary import summary
from openmav.view import View


class Controllers(Protocol):
    """The controllers whose commands have no key."""

    @property
    def panels(self) -> PanelsController: ...

    @property
    def layouts(self) -> LayoutsController: ...

    @property
    def display(self) -> DisplayController: ...

    @property
    def model(self) -> ModelController: ...

    @property
    def sweep(self) -> SweepController: ...


def commands(view: View, perform: Callable[[str], Awaitable[None]], controllers: Controllers) -> Iterator[SystemCommand]:
    """All keys, layouts, panels, their views and themes, by group. `perform` runs the action of the key with this id."""
    panels, layouts, display = controllers.panels, controllers.layouts, controllers.display
    for group, rows in keys.groups().items():
        yield from _bound(group, rows, view, perform)
        if group == "View":
            yield from _views(panels, display)
            if PALETTES[view.theme].color:
                for theme in THEMES:
                    yield SystemCommand(f"View: theme {theme}", "change the colours of the screen", partial(display.set_theme, theme))
        elif group == "Change":
            about = "ablate each head, attention, MLP or layer alone, for the shown token: a live map; the run stays as it is"
            yield SystemCommand("Change: sweep", about, controllers.sweep.start)
        elif group == "Run":
            yield SystemCommand(
                "Run: load another model", "asks for a name or a folder; this one stays until it is there", controllers.model.ask
            )
        elif group == "Panels":
            yield from _panels(panels)
        elif group == "Layouts":
            yield from _layouts(view, layouts)


def _bound(group: str, rows: tuple[keys.Key, ...], view: View, perform: Callable[[str], Awaitable[None]]) -> Iterator[SystemCommand]:
    bound = keys.keys_of(view.options.keys)
    for key in rows:
        if not key.id.startswith("layout_") and key.id != "palette":
            yield SystemCommand(f"{group}: {key.description}", f"key: {keys.key_names(bound[key.id])}", partial(perform, key.id))


def _views(panels: PanelsController, display: DisplayController) -> Iterator[SystemCommand]:
    """Each way in which a panel that is shown can show what it has."""
    for name, module in panels.modules.items():
        modes = getattr(module, "MODES", ())
        for mode in modes if len(modes) > 1 else ():
            title = f"colour the text by {mode}" if name == "generated_text" else f"{one_line(str(module.TITLE))} as {one_line(str(mode))}"
            yield SystemCommand(f"View: {title}", one_line(summary(module)), partial(display.show_mode, name, mode))


def _panels(panels: PanelsController) -> Iterator[SystemCommand]:
    """Going to each panel that is shown, and adding each that is not."""
    for name, module in panels.modules.items():
        yield SystemCommand(f"Panels: go to {_name(module)}", one_line(summary(module)), partial(panels.focus, name))
    for name in registry.names("panels"):
        if name not in panels.modules:
            try:
                module = registry.load("panels", name)
            except UsageError as error:  # somebody else's panel that does not import
                yield SystemCommand(f"Panels: add {name}", one_line(str(error)), partial(panels.add, name))
            else:
                yield SystemCommand(f"Panels: add {_name(module)}", one_line(summary(module)), partial(panels.add, name))


def _layouts(view: View, layouts: LayoutsController) -> Iterator[SystemCommand]:
    bound = keys.keys_of(view.options.keys)
    for at, (name, shown) in enumerate(view.options.layouts.items(), 1):
        key = f"key: {keys.key_names(bound[f'layout_{at}'])} · " if f"layout_{at}" in bound else ""
        yield SystemCommand(
            f"Layouts: {name}", f"{key}{', '.join(panel.replace('_', ' ') for panel in shown)}", partial(layouts.show, name)
        )
    yield SystemCommand("Layouts: save this one", "the panels, their order and sizes, under a name of yours", layouts.ask_name)


def _name(module: ModuleType) -> str:
    return one_line(str(module.TITLE))
