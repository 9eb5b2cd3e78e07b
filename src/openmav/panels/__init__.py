"""Panels: one file each, a pure function from what there is to see and a box to lines.

A panel has TITLE, NEEDS (names of measures in Step.values), HELP (what it shows, how to read it, the formula, its source and
what is normal) and `render(view, width, height)`. It may have:

    FOCUS = True                        what it needs is computed for the selected layer only
    LAYERS = True                       one row a layer: stands beside the other layer panels and scrolls with them
    STRIP = True                        lies across the whole screen, few rows high
    WEIGHT = 1.5                        how wide beside its neighbours
    ROWS = 12                           rows beyond which it gains nothing
    FOOT = 4                            rows of a layer panel that stand below its layers
    heading(view, width) -> str         a title that depends on what is shown, for so many cells
    note(view, width, height) -> str    a line for the lower edge of the frame; parts are set apart by " · "
    legend(view, width) -> Line         what the colours mean, for the right end of the frame's upper edge
    MODES = ("a", "b")                  kinds of what it shows; view.mode(panel, MODES) is the one that the reader chose with the key v
    MODE_NEEDS = {"b": ("measure",)}    what a kind needs besides NEEDS; computed while it is chosen
    needs(view) -> ("measure",)         what it needs besides NEEDS for what the reader set, such as his watches
    pick(view, width, height, x, y)     the View after a click there
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openmav.panels._view import View


def needs(names: Iterable[str], modes: Mapping[str, str] | None = None, view: View | None = None) -> frozenset[str]:
    """The measures that these panels draw, in the kinds that the reader chose, and for what he set in the view.

    Raises UsageError for an unknown panel.
    """
    from openmav import registry

    found: set[str] = set()
    for name in names:
        module = registry.load("panels", name)
        found.update(module.NEEDS, getattr(module, "MODE_NEEDS", {}).get((modes or {}).get(name), ()))
        if view is not None and hasattr(module, "needs"):
            found.update(module.needs(view))
    return frozenset(found)
