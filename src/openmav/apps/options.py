"""How a reader wants things shown; no part of it changes what the model does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from openmav.apps.layouts import LAYOUTS
from openmav.settings import Aggregation

Scale: TypeAlias = Literal["linear", "log", "minmax"]
PANELS = LAYOUTS["overview"]


@dataclass(frozen=True)
class AppOptions:
    """`scale` and `max_bar_length` change bars only, never the numbers beside them."""

    scale: Scale = "linear"
    max_bar_length: int | None = None  # cells; None: as long as the panel allows
    limit_chars: int = 400  # of the generated text that are shown, the newest; 0: all
    panels: tuple[str, ...] = PANELS
    grid_rows: int | None = None  # None: the layout that mav chooses for the size of the screen
    aggregation: Aggregation = "l2"  # how the run's norms were computed; it names them on the screen
    theme: str | None = None  # dark, light or contrast
    color: bool = True  # False: NO_COLOR, shapes and glyphs only
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYOUTS)  # mav's and the reader's own, by name
    own_panels: tuple[str, ...] = ()  # of the reader's own files: shown beside those of every layout
    watches: tuple[str, ...] = ()  # values and conditions to show, as conditions.parse reads them
    keys: Mapping[str, str] = field(default_factory=dict)  # {id of a binding: its keys, set apart by commas} where they are not mav's
