"""Themes, help and screenshots."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.safe_panel import failure, is_own
from openmav.apps.tui.tiles import THEMES
from openmav.paint import PALETTES
from openmav.system.files import write_file


class DisplayController:
    """`screenshot` returns the screen as SVG, `use_theme` sets one of mav's themes by name."""

    def __init__(self, context: Context, panels: PanelsController, screenshot: Callable[[], str], use_theme: Callable[[str], None]) -> None:
        self._context, self._panels, self._screenshot, self._use_theme = context, panels, screenshot, use_theme

    def help(self) -> None:
        from openmav.apps.tui.screens.help import HelpScreen

        module, place, view = self._panels.focused_module, self._panels.focused_place, self._context.view
        error = failure(module, view, *place.inner) if place is not None and is_own(module) else ""
        self._context.open(HelpScreen(str(module.TITLE), str(module.HELP), view, error), lambda _: None)

    def next_theme(self) -> None:
        """The next theme; there is only one without colour."""
        palette = PALETTES[self._context.view.theme]
        if not palette.color:
            self._context.notify("NO_COLOR is set: there are no themes to choose from")
            return
        self.set_theme(THEMES[(THEMES.index(palette.name) + 1) % len(THEMES)])

    def set_theme(self, name: str) -> None:
        self._use_theme(name)
        self._context.show(replace(self._context.view, theme=name))

    def show_mode(self, panel: str, mode: str) -> None:
        """One of the views of a panel, by its name."""
        view = self._context.view
        self._panels.focus(panel)
        self._context.show(replace(view, modes={**view.modes, panel: mode}))

    def save(self) -> None:
        """Saves the screen as an SVG file in the working directory."""
        try:
            path = Path.cwd() / time.strftime("mav-%Y%m%d-%H%M%S.svg")
            write_file(path, self._screenshot().encode())
        except OSError as error:
            self._context.notify(f"cannot save the screen here: {error.strerror or error}")
        else:
            self._context.notify(f"saved {path}")
