"""What the command palette offers; loaded when it is first opened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.binding import Binding

from openmav import registry
from openmav.apps.tui.draw import LOOKS
from openmav.apps.tui.hints import written
from openmav.apps.tui.keymap import keys_of
from openmav.apps.tui.keys import BINDINGS

if TYPE_CHECKING:
    from openmav.apps.tui.app import MavApp


def commands(app: MavApp) -> Iterator[SystemCommand]:
    """Every key by what it does, every panel, every layout, every look."""
    keys = keys_of(app.view.options.keys)
    for binding in BINDINGS:
        if isinstance(binding, Binding) and not binding.action.startswith("layout("):
            key = written(keys[binding.id or ""])
            yield SystemCommand(binding.description.capitalize(), f"key: {key}", partial(app.run_action, binding.action))
    for name, module in app.modules.items():
        yield SystemCommand(f"Panel: {module.TITLE}", "go to this panel", partial(_focus, app, name))
    for name in app.view.options.layouts:
        yield SystemCommand(f"Layout: {name}", ", ".join(app.view.options.layouts[name]), partial(app.show_layout, name))
    yield SystemCommand("Save this layout", "its panels, their order and sizes, under a name of yours", app.ask_layout_name)
    for name in registry.names("panels"):
        if name not in app.modules:
            yield SystemCommand(f"Add panel: {name}", "show this panel too", partial(app.add_panel, name))
    if app.view.palette.color:
        for look in LOOKS:
            yield SystemCommand(f"Theme: {look}", "change the colours", partial(app.set_look, look))


def _focus(app: MavApp, name: str) -> None:
    app.focus_name = name
    app.redraw()
