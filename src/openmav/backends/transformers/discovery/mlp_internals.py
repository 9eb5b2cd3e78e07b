"""What is inside an MLP sub-block: its last linear map (the down projection), or the experts that a router selects from.

The last linear map is the last one before the MLP's output is added to the residual stream. The experts module is the one that is called
with the selection, ids and weights [tokens, k], or else the router that scores all experts, 0 for those not selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class MlpInternals:
    """One entry per layer; None where there is none, and `missing` says why: {site: {layer: reason}}.

    `overwrites`: this model writes into outputs after they are returned (falcon adds attention to its MLP's output in place), so an
    output must be copied at once to be kept. `factors`: what the MLP adds is this times the output of its last linear map, a number or
    one per channel [width]; None: it is no multiple of it, for example behind a norm. `chosen`: experts per token where the module in
    `experts` is a router whose output [tokens, experts] scores all of them; None where it is called with the selection.
    """

    last_linear: tuple[nn.Module | None, ...] = ()
    experts: tuple[nn.Module | None, ...] = ()
    overwrites: bool = False
    factors: tuple[float | Tensor | None, ...] = ()
    chosen: tuple[int | None, ...] = ()
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
