"""What is known of a model of llama.cpp once it was tried: its parts, what is missing, and how to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp.anatomy import Anatomy
from openmav.backends.llamacpp.context import Context, ContextSettings, Weights
from openmav.backends.llamacpp.head import LlamaHead
from openmav.backends.llamacpp.passes import Changes, Passes
from openmav.backends.sites import SITES


def apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """max |a - b| / max |b|."""
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30))


@dataclass
class Examined:
    """`missing` is {site: {layer: reason}}. `cuts`: going back cuts the cache. `heads`: attention rows of a layer, the most of all."""

    weights: Weights
    settings: ContextSettings
    layers: int
    width: int
    heads: int = 0
    parts: Anatomy | None = None
    missing: dict[str, dict[int, str]] = field(default_factory=dict)
    cuts: bool = True
    notes: tuple[str, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)
    stops: int = 0  # for all of the default measures
    sample: tuple[int, ...] = ()  # tokens that were tried
    per_token: int = 0  # bytes of the cache
    per_text: int = 0
    known: frozenset[str] = SITES
    head: LlamaHead | None = None
    hidden: tuple[int, ...] = ()  # neurons of each layer, 0 without
    layer_heads: tuple[int, ...] = ()
    head_columns: tuple[int, ...] = ()  # of all heads' outputs, 0 where they were not found

    @property
    def linear_limit(self) -> float:
        """What directions may miss of the logits: with weights of fewer bits llama.cpp rounds what it multiplies them by to 8 bits."""
        return 1e-4 if self.weights.kind in ("float32", "float16", "bfloat16") else 3e-2

    @property
    def readable(self) -> frozenset[str]:
        """Sites that some layer has."""
        return frozenset(site for site in self.known if len(self.missing.get(site, {})) < self.layers)

    def passes(self, context: Context, changes: Changes | None = None, *, exact: bool = False) -> Passes:
        return Passes(context, self.layers, changes, exact=exact, cuts=self.cuts)

    def cache_bytes(self, tokens: int) -> int:
        return self.per_token * tokens + self.per_text

    def lack(self, sites: Sequence[str], layers: Sequence[int], why: str) -> None:
        for site in sites:
            self.missing.setdefault(site, {}).update(dict.fromkeys(layers, why))
