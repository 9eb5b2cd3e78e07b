"""The contract of a panel: `data(view)` gathers numbers and texts, `render(data, box)` makes lines of them.

`data` returns a frozen dataclass with all that the panel shows: numpy arrays, tuples, mappings, numbers, texts, None and frozen
dataclasses of these; no colours, no styles, no cells. Texts in it are safe to show: what a model or a user wrote went through
`visible`, `printable` or `one_line`. The terminal renders it; a web page or a notebook draws from the same data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol, TypeVar

from openmav.paint import PALETTES, Line, Palette
from openmav.plugins.contracts import has_data
from openmav.view import Selection, View
from openmav.view.options import Scale

D = TypeVar("D")


@dataclass(frozen=True)
class Box:
    """Where and how a panel is drawn. `scale` and `max_bar_length` change bars and colours, never the numbers beside them."""

    width: int  # cells inside of the frame
    height: int  # rows inside of the frame
    palette: Palette = PALETTES["dark"]
    scale: Scale = "linear"
    max_bar_length: int | None = None  # cells; None: as long as the panel allows
    gutter: bool = True  # a layer panel draws the layers' numbers; a neighbour on the left may have done it
    scroll: int = 0  # layer rows hidden above
    maximised: bool = False  # it has the whole screen, and tells more than a tile can

    @classmethod
    def of(cls, view: View, width: int, height: int, gutter: bool = True) -> Box:
        options = view.options
        return cls(width, height, PALETTES[view.theme], options.scale, options.max_bar_length, gutter, view.scroll, view.maximised)

    def longest(self, room: int) -> int:
        """Cells of the longest bar where there is room for `room`."""
        return min(room, self.max_bar_length or room)


class Panel(Protocol[D]):
    """What a panel's module must have. `docs/plugins.md` lists what it may have."""

    TITLE: str
    NEEDS: Collection[str]  # names of the measures that it shows
    HELP: str

    def data(self, view: View) -> D:
        """All that the panel shows, the same for the same view. Where `view.size` is set, only tokens that fit there are needed."""

    def render(self, data: D, box: Box) -> Sequence[Line | str]:
        """At most `box.height` lines of at most `box.width` cells."""


@dataclass(frozen=True)
class PanelOutput:
    """A panel in a box: its title, the note and the legend on its frame, the column that the frame points at, its lines."""

    title: str
    note: str
    legend: Line | None
    lines: Iterable[Any]  # each a text or a list of Rich segments; those of somebody else's panel are not checked yet
    pointer: int | None = None


def draw(module: ModuleType, view: View, width: int, height: int, title_width: int | None = None, *, gutter: bool = True) -> PanelOutput:
    """All that a panel shows in `width` x `height` cells, its title in `title_width`; `gutter` as in Box. Raises whatever the panel raises.

    A panel without `data` gets the view itself: render(view, width, height), heading(view, width) and so on.
    """
    title_width = width if title_width is None else title_width
    if not has_data(module):
        return PanelOutput(
            title=module.heading(view, title_width) if hasattr(module, "heading") else module.TITLE,
            note=module.note(view, width, height) if hasattr(module, "note") else "",
            legend=module.legend(view, width) if hasattr(module, "legend") else None,
            lines=module.render(view, width, height),
        )
    box = Box.of(view, width, height, gutter)
    data = module.data(replace(view, size=(width, height)))
    return PanelOutput(
        title=module.heading(data, replace(box, width=title_width)) if hasattr(module, "heading") else module.TITLE,
        note=module.note(data, box) if hasattr(module, "note") else "",
        legend=module.legend(data, box) if hasattr(module, "legend") else None,
        lines=module.render(data, box),
        pointer=module.pointer(data, box) if hasattr(module, "pointer") else None,
    )


def pick(module: ModuleType, view: View, width: int, height: int, x: int, y: int, *, gutter: bool = True) -> Any:
    """The View after a click in the panel at cell `x`, `y`; whatever a panel without `data` returns."""
    if not has_data(module):
        return module.pick(view, width, height, x, y)
    selection = module.pick(module.data(replace(view, size=(width, height))), Box.of(view, width, height, gutter), x, y)
    if selection is None or selection == Selection():
        return view
    return view.selecting(selection) if isinstance(selection, Selection) else selection
