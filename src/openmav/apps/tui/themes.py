"""Textual themes made from mav's palettes, so that every colour is defined once."""

from __future__ import annotations

from textual.app import App
from textual.theme import Theme

from openmav.apps.tui.tiles import THEMES
from openmav.paint import PALETTES, Palette


def _theme(palette: Palette) -> Theme:
    return Theme(
        name=f"mav-{palette.name}",
        primary=palette.key,
        secondary=palette.secondary,
        accent=palette.accent,
        warning=palette.warning,
        error=palette.warning,
        foreground=palette.text,
        background=palette.ground,
        surface=palette.ground,
        panel=palette.select,
        dark=palette.dark,
        variables={"border": palette.frame, "border-blurred": palette.frame},
    )


def register(app: App, palette: Palette) -> None:
    """Registers the themes with the app and sets one; without colour, the terminal's own colours are kept."""
    for name in THEMES:
        app.register_theme(_theme(PALETTES[name]))
    app.theme = f"mav-{palette.name}" if palette.color else next(name for name, theme in app.available_themes.items() if theme.ansi)
