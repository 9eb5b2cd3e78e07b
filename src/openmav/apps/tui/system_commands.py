"""The commands of the command palette. Imported when it is first opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from textual.app import SystemCommand

from openmav.apps.tui import keys
from openmav.apps.tui.controllers.display import DisplayController
from openmav.apps.tui.controllers.layouts import LayoutsController
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.tiles import THEMES
from openmav.paint import PALETTES, one_line
from openmav.plugins import registry
from openmav.view import View


def commands(
    view: View, perform: Callable[[str], Awaitable[None]], panels: PanelsController, layouts: LayoutsController, display: DisplayController
) -> Iterator[SystemCommand]:
    """All keys, panels, layouts and themes. `perform` runs the action of the key with this id."""
    bound = keys.keys_of(view.options.keys)
    for key in keys.KEYS:
        if not key.id.startswith("layout_") and key.id != "palette":
            yield SystemCommand(key.description.capitalize(), f"key: {keys.key_names(bound[key.id])}", partial(perform, key.id))
    for name, module in panels.modules.items():
        yield SystemCommand(f"Panel: {one_line(str(module.TITLE))}", "focus this panel", partial(panels.focus, name))
    for name, shown in view.options.layouts.items():
        yield SystemCommand(f"Layout: {name}", ", ".join(shown), partial(layouts.show, name))
    yield SystemCommand("Save this layout", "the panels, their order and sizes, under a name", layouts.ask_name)
    for name in registry.names("panels"):
        if name not in panels.modules:
            yield SystemCommand(f"Add panel: {name}", "show this panel", partial(panels.add, name))
    if PALETTES[view.theme].color:
        for theme in THEMES:
            yield SystemCommand(f"Theme: {theme}", "change the theme", partial(display.set_theme, theme))
