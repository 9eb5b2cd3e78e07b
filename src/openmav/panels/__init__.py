"""Panels, a file each: `data(view)` gathers what the panel shows, `render(data, box)` makes lines of it. `base.py` has the contract.

A panel has TITLE, NEEDS (names of measures in Step.values), HELP (what it shows, how to read it, the formula, its source and
what is normal), `data(view)` and `render(data, box)`. It may have:

    FOCUS = True                    what it needs is computed for the selected layer only
    LAYERS = True                   one row a layer: it stands beside the other layer panels and scrolls with them
    TOP = True                      it stands above the others, as the text and the candidates do
    STRIP = True                    it spans the whole screen, few rows high
    WEIGHT = 1.5                    width relative to its neighbours
    ROWS = 12                       rows beyond which it gains nothing
    rows(view) -> int | None        the same for what is shown now, of mav's own panels; None: no limit
    BESIDE = 40                     it stands beside the text where it has so many cells there, frame included, else below
    FOOT = 4                        rows of a layer panel below its layers
    MORE = 16                       rows beyond those that it can draw something in, where no text takes them
    candidates(view, width, height) -> int  how many candidates mav's own lists have room for
    heading(data, box) -> str       a title that depends on what is shown
    note(data, box) -> str          a line for the lower edge of the frame; parts are separated by " · "
    legend(data, box) -> Line       what the colours mean, for the right end of the frame's upper edge
    pointer(data, box) -> int       the column of the token under the cursor, which the frame's edges point at; None: out of sight
    MODES = ("a", "b")              modes of the panel; view.mode(panel, MODES) is the one that the user chose with the key v
    MODE_NEEDS = {"b": ("m",)}      measures that a mode needs besides NEEDS; computed while it is chosen
    needs(view) -> ("measure",)     measures that it needs besides NEEDS for what the user set, for example watches
    pick(data, box, x, y)           the Selection that a click there makes; None for none
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmav.panels.base import Box, Panel, PanelOutput, draw, pick
    from openmav.view import Selection, View

__all__ = ["Box", "Panel", "PanelOutput", "Selection", "draw", "needs", "pick"]


def __getattr__(name: str) -> Any:
    """Box, draw and the others are imported when they are first used: `needs` alone needs no paint."""
    if name not in __all__:
        raise AttributeError(f"module 'openmav.panels' has no attribute '{name}'")
    return getattr(importlib.import_module("openmav.panels.base"), name)


def needs(names: Iterable[str], modes: Mapping[str, str] | None = None, view: View | None = None) -> frozenset[str]:
    """The measures that these panels show, in the modes that the user chose, and for what is set in the view.

    Raises UsageError for an unknown panel.
    """
    from openmav.plugins import registry

    measures: set[str] = set()
    for name in names:
        module = registry.load("panels", name)
        measures.update(module.NEEDS, getattr(module, "MODE_NEEDS", {}).get((modes or {}).get(name), ()))
        if view is not None and hasattr(module, "needs"):
            measures.update(module.needs(view))
    return frozenset(measures)
