"""How a reader wants things shown; no part of it changes what the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from openmav.settings import Aggregation
from openmav.view.layouts import LAYOUTS

Scale: TypeAlias = Literal["linear", "log", "minmax"]
Size: TypeAlias = tuple[float, float]  # width and height of a panel, as multiples of what the layout gives it
LEAST, MOST = 0.25, 4.0  # of such a size
PANELS = LAYOUTS["overview"]


@dataclass(frozen=True)
class AppOptions:
    """`scale` and `max_bar_length` change bars only, never the numbers beside them."""

    scale: Scale = "linear"
    max_bar_length: int | None = None  # cells; None: as long as the panel allows
    limit_chars: int = 0  # of the generated text that are shown in a tile, the newest; 0: as many as fit
    panels: tuple[str, ...] = PANELS
    grid_rows: int | None = None  # None: the layout that mav chooses for the size of the screen
    aggregation: Aggregation = "l2"  # how the run's norms were computed; it names them on the screen
    theme: str | None = None  # dark, light or contrast
    color: bool = True  # False: NO_COLOR, shapes and glyphs only
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYOUTS)  # mav's and the user's own, by name
    layout: str = ""  # the name of the layout that `panels` are those of; "" for none
    sizes: Mapping[str, Mapping[str, Size]] = field(default_factory=dict)  # {layout: {panel: its size}} where it is not 1
    save_layout: Callable[[str, tuple[str, ...], Mapping[str, Size]], object] | None = None  # keeps a layout for the next time
    own_panels: tuple[str, ...] = ()  # of the user's own files: shown beside those of every layout
    watches: tuple[str, ...] = ()  # values and conditions to show, as conditions.parse reads them
    keys: Mapping[str, str] = field(default_factory=dict)  # {id of a binding: its keys, separated by commas} where they are not mav's

    @property
    def shown_layout(self) -> str:
        """The layout whose panels these are, beside the user's own; "" for none."""
        shown = tuple(panel for panel in self.panels if panel not in self.own_panels)
        named = [name for name, panels in self.layouts.items() if panels == shown]
        return self.layout if self.layout in named else next(iter(named), "")
