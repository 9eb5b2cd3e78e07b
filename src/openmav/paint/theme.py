"""Palettes: all colours of mav, each defined once; `ink` turns a role into a cached Rich style."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from rich.style import Style

# After ColorBrewer's YlGnBu (Harrower and Brewer 2003): safe for colour-blind users, lightness grows evenly. On a dark ground low is dark
# and high is bright, on a light ground low is pale and high is dark: low always stands out least.
ON_DARK = ("#17264f", "#1c3a75", "#22559b", "#2a7ab5", "#48a5c0", "#8cccb8", "#d5ecb9", "#fff7a8")
ON_LIGHT = ("#eef7dc", "#cdebc3", "#93d5bd", "#55bcc2", "#2d97c0", "#2369ab", "#243f93", "#0b1d58")
LEVELS = 16  # steps of a heat ramp: more would only cost styles
READABLE = 4.5  # contrast of text that can be read (WCAG 2.2, level AA)
SHADES = " ░▒▓█"  # a heat ramp without colour
NEGATIVE_SHADES = " -=≡#"  # the same below 0
BLUE, ORANGE = "#4f8fe6", "#e6944a"  # the ends of the diverging ramp: distinguishable for colour-blind users too


def mix(a: str, b: str, share: float) -> str:
    """The colour at `share` (0..1) between `a` and `b`; all are "#rrggbb"."""
    parts = [round(int(a[i : i + 2], 16) * (1 - share) + int(b[i : i + 2], 16) * share) for i in (1, 3, 5)]
    return "#" + "".join(f"{part:02x}" for part in parts)


def ramp(stops: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` colours spread evenly over the stops."""
    colours = []
    for i in range(count):
        place = i / (count - 1) * (len(stops) - 1)
        low = min(int(place), len(stops) - 2)
        colours.append(mix(stops[low], stops[low + 1], place - low))
    return tuple(colours)


def luminance(colour: str) -> float:
    """The relative luminance of "#rrggbb", 0..1, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=1024)
def contrast(a: str, b: str) -> float:
    """The contrast of two colours, 1..21, as WCAG defines it."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@dataclass(frozen=True)
class Palette:
    """One look. The names are roles; `heat` runs from low to high, evenly in lightness and away from the ground."""

    name: str
    color: bool  # False: attributes and glyphs only
    dark: bool
    ground: str
    text: str
    secondary: str
    frame: str
    select: str  # background behind what the user selected
    accent: str  # the chosen token, and nothing else
    key: str
    warning: str
    probability: str
    mlp: str
    attention: str
    entropy: str
    residual: str
    heat: tuple[str, ...]
    diverging: tuple[str, ...]  # from far below 0 over 0 in the middle to far above

    @property
    def surprise(self) -> tuple[str, ...]:
        """The colours of the steps of surprise: every other one of `heat`."""
        return self.heat[1::2]


def _diverging(middle: str) -> tuple[str, ...]:
    """Blue, the quiet colour of 0, orange."""
    return ramp((BLUE, middle, ORANGE), LEVELS + 1)


DARK = Palette(
    name="dark",
    color=True,
    dark=True,
    ground="#0f1419",
    text="#c9d1d9",
    secondary="#6e7681",
    frame="#30363d",
    select="#1f2a36",
    accent="#e5c07b",
    key="#7aa2f7",
    warning="#ff7b72",
    probability="#9d8cd6",
    mlp="#5fb3b3",
    attention="#d19a66",
    entropy="#7aa2f7",
    residual="#8b949e",
    heat=ramp(ON_DARK, LEVELS),
    diverging=_diverging("#242a32"),
)
LIGHT = Palette(
    name="light",
    color=True,
    dark=False,
    ground="#fbfaf7",
    text="#24292f",
    secondary="#6b7280",
    frame="#cfd3d8",
    select="#e3e9f2",
    accent="#a86400",
    key="#2f5fd0",
    warning="#c8342b",
    probability="#6f56b8",
    mlp="#22807f",
    attention="#b5651d",
    entropy="#3b68d6",
    residual="#6e7781",
    heat=ramp(ON_LIGHT, LEVELS),
    diverging=_diverging("#ecebe6"),
)
CONTRAST = Palette(
    name="contrast",
    color=True,
    dark=True,
    ground="#000000",
    text="#ffffff",
    secondary="#b8c0c8",
    frame="#8a929a",
    select="#263a55",
    accent="#ffd84d",
    key="#8fb8ff",
    warning="#ff8f85",
    probability="#c3b2ff",
    mlp="#5ee0e0",
    attention="#ffb066",
    entropy="#8fb8ff",
    residual="#c6ced6",
    heat=ramp(ON_DARK, LEVELS),
    diverging=_diverging("#1c1c1c"),
)
MONO = Palette(
    **{  # type: ignore[arg-type]
        **{f.name: "" for f in fields(Palette)},
        "name": "mono",
        "color": False,
        "dark": True,
        "heat": ("",) * LEVELS,
        "diverging": ("",) * (LEVELS + 1),
    }
)
PALETTES = {palette.name: palette for palette in (DARK, LIGHT, CONTRAST, MONO)}

_PLAIN: dict[str, set[str]] = {  # the attributes of a role where there is no colour
    "secondary": {"dim"},
    "frame": {"dim"},
    "accent": {"bold"},
    "key": {"bold"},
    "warning": {"bold", "reverse"},
}


@lru_cache(maxsize=1024)
def ink(palette: Palette, role: str = "text", on: str = "", bold: bool = False, underline: bool = False) -> Style:
    """The style of a role, or of a colour "#rrggbb", on another; cached, so that drawing a frame creates no styles.

    Without colour, a background means reversed text.
    """
    if not palette.color:
        plain = {"reverse"} if on else _PLAIN.get(role, set())
        return Style(
            bold=(bold or "bold" in plain) or None,
            dim="dim" in plain or None,
            reverse="reverse" in plain or None,
            underline=underline or None,
        )

    def colour(name: str) -> str | None:
        return (name if name.startswith("#") else str(getattr(palette, name))) if name else None

    return Style(color=colour(role), bgcolor=colour(on), bold=bold or None, underline=underline or None)


@lru_cache(maxsize=1024)
def readable(palette: Palette, on: str) -> str:
    """The colour of text on a ground "#rrggbb": the palette's own where it can be read there, else black or white."""
    return palette.text if contrast(palette.text, on) >= READABLE else max(("#000000", "#ffffff"), key=lambda colour: contrast(colour, on))
