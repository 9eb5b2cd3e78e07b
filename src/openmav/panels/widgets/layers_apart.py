"""How far apart the layers of two compared runs are, for the panels that show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmav.paint import number_text
from openmav.panels.widgets.layer_rows import LayerData, why_no_layers
from openmav.record import Step
from openmav.record.comparison import COMPARISON, PARTS, Part, first_parting
from openmav.view import View

HUES: dict[Part, str] = {"attention": "attention", "MLP": "mlp", "residual": "residual"}
NO_COMPARISON = "no comparison: mav compare makes one"


@dataclass(frozen=True, kw_only=True)
class ApartData(LayerData):
    """What both panels of layers know."""

    threshold: float  # the share from which on the runs part
    first: tuple[int, int, str] | None  # the first token, layer and part at which they do


def scientific(value: float) -> str:
    """Two digits and a power of ten."""
    return f"{value:.1e}" if np.isfinite(value) else number_text(value, 0)


def is_plain(values: NDArray[np.float64]) -> bool:
    """Whether two decimals are two digits at least of each of these numbers, and few enough to be read."""
    sizes = values[np.isfinite(values) & (values > 0)]
    return bool(((sizes >= 0.1) & (sizes < 10_000)).all())


def amount(value: float, plain: bool | None = None) -> str:
    """Two decimals where it is plain, else scientific. `plain`: whether all of its column are; None: it stands alone."""
    if np.isnan(value):
        return "none"
    if value == 0:
        return "0"
    plain = is_plain(np.array([value])) if plain is None else plain
    return f"{value:.2f}" if np.isfinite(value) and plain else scientific(value)


def rows_of(step: Step | None, name: str, layers: int) -> NDArray[np.float64] | None:
    """[3, layers] of an entry of the comparison; None where the step has none."""
    rows = None if step is None else step.values.get(f"{COMPARISON}.{name}")
    return None if rows is None or rows.shape != (len(PARTS), layers) else np.asarray(rows, dtype=np.float64)


def why_not_compared(view: View) -> str | None:
    """Why there are no layers to show; None where there are."""
    empty = why_no_layers(view)
    if empty is not None or rows_of(view.step, "share", view.layers) is not None:
        return empty
    facts = view.comparison
    if facts is None:
        return NO_COMPARISON
    return f"layers are not compared: the models have {facts.why_no_layers}" if facts.why_no_layers else "not captured for this token"


def apart_facts(view: View) -> tuple[float, tuple[int, int, str] | None]:
    """The threshold, and the first parting of the whole text; NaN and None where they are not known."""
    threshold = view.comparison.threshold if view.comparison is not None else np.nan
    return threshold, first_parting(view.steps[-1]) if len(view.steps) else None
