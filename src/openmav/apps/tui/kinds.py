"""What the layout needs to know of each panel: its group and its sizes, from the attributes of its module and the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from openmav.view import View

Group: TypeAlias = Literal["top", "layers", "side", "strip"]
TOP = ("generated_text", "top_predictions")
CARD = 0.5  # width of a panel with BESIDE, against that of the text


@dataclass(frozen=True)
class Kind:
    """What the layout needs to know of a panel."""

    group: Group
    weight: float = 1.0  # of its width beside its neighbours
    tall: float = 1.0  # of its height above and below others
    rows: int | None = None  # inside its frame, beyond which it has nothing more to show; None: no limit
    least: int = 0  # rows inside its frame, with fewer of which it would hide what must be seen
    foot: int = 0  # rows below those of its layers
    more: int = 0  # rows beyond those that it can draw something in, where no text takes them
    beside: int = 0  # cells that a panel of the top group needs there, frame included; with fewer it is at the side


def kind_of(name: str, module: object) -> Kind:
    """The group and sizes of a panel, from the attributes of its module."""
    if getattr(module, "LAYERS", False):
        return Kind("layers", getattr(module, "WEIGHT", 1.0), foot=getattr(module, "FOOT", 0), more=getattr(module, "MORE", 0))
    if getattr(module, "STRIP", False):
        return Kind("strip")
    if hasattr(module, "BESIDE"):
        return Kind("top", CARD, rows=getattr(module, "ROWS", None), beside=module.BESIDE)
    if name in TOP or getattr(module, "TOP", False):
        return Kind("top", 1.0 + 0.1 * (TOP.index(name) if name in TOP else 0), rows=getattr(module, "ROWS", None))
    return Kind("side", rows=getattr(module, "ROWS", None), least=getattr(module, "LEAST_ROWS", 0), more=getattr(module, "MORE", 0))


def kinds_of(modules: Mapping[str, object], sizes: Mapping[str, tuple[float, float]]) -> dict[str, Kind]:
    """The kinds of all panels; `sizes` multiplies the (width, height) of some."""
    kinds = {name: kind_of(name, module) for name, module in modules.items()}
    for name in kinds.keys() & sizes.keys():
        wide, tall = sizes[name]
        kinds[name] = replace(kinds[name], weight=kinds[name].weight * wide, tall=tall)
    return kinds


def for_view(kinds: Mapping[str, Kind], modules: Mapping[str, object], view: View) -> dict[str, Kind]:
    """The kinds with the rows that the panels have a use for now, where that depends on what they show."""

    def now(name: str, kind: Kind) -> Kind:
        module = modules.get(name)
        rows = getattr(module, "rows", None) if getattr(module, "__name__", "").startswith("openmav.") else None
        return kind if rows is None else replace(kind, rows=rows(view))

    return {name: now(name, kind) for name, kind in kinds.items()}
