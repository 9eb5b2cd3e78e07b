"""Norms of many tokens side by side: layers by tokens, on a scale of factors, since layers differ by orders of magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmav.paint import shares
from openmav.panels.widgets.heat_grid import Columns, windowed
from openmav.panels.widgets.sequence import tokens_in_sight
from openmav.panels.widgets.sparkline import roomy
from openmav.view import View

WIDE = 2  # characters of a cell at least
RANGE = 1000.0  # between the values of the ramp's two ends, at most


@dataclass(frozen=True)
class NormHistory:
    """A measure of shape [layers] at the tokens that can be in sight."""

    norms: NDArray[np.float64]  # [tokens, layers], no unit, from token `first` on; NaN where a layer has none
    captured: tuple[bool, ...]  # [tokens]: whether the token was made while the norms were computed
    first: int
    tokens: int  # all generated tokens, of which `norms` holds those that can be in sight

    def table(self, columns: Columns) -> NDArray[np.float64]:
        """[layers, tokens in sight]; NaN for tokens that were made without."""
        table: NDArray[np.float64] = self.norms[columns.shown.start - self.first : columns.shown.stop - self.first].T
        return table

    def known(self, columns: Columns) -> tuple[bool, ...]:
        """[tokens in sight]: whether the token was made while the norms were computed."""
        return self.captured[columns.shown.start - self.first : columns.shown.stop - self.first]


def token_columns(tokens: int, room: int, cursor: int, least: int = WIDE) -> Columns:
    """A cell for each token, wider where all have room for it: all of them, or those around the cursor."""
    return windowed(tokens, room, max(least, roomy(tokens, room)), cursor)


def history_of(view: View, measure: str, least: int = WIDE) -> NormHistory:
    """Of the tokens that fit where each takes `least` cells."""
    sight = tokens_in_sight(view, least)
    rows = [view.steps[at].values.get(measure) for at in sight]
    none = np.full(view.layers, np.nan)
    norms = np.array([none if row is None else row for row in rows], dtype=np.float64).reshape(len(rows), view.layers)
    return NormHistory(norms, tuple(row is not None for row in rows), sight.start, len(view.steps))


def norm_shares(table: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """The colours 0..1: ln(v / low) / ln(high / low), low at least high / RANGE; linear with minmax. What is not finite stays so."""
    low, high = norm_ends(table, scale)
    if scale == "minmax" or high <= 0:
        return np.where(np.isfinite(table), shares(table, "minmax"), np.nan)
    if low >= high:
        return np.where(np.isfinite(table), 1.0, np.nan)
    return np.where(np.isfinite(table), np.log(np.clip(table, low, high) / low) / np.log(high / low), np.nan)


def norm_ends(table: NDArray[np.float64], scale: str) -> tuple[float, float]:
    """The values at the two ends of the ramp; 0, 0 where nothing is finite."""
    finite = table[np.isfinite(table)]
    if not finite.size:
        return 0.0, 0.0
    low, high = float(finite.min()), float(finite.max())
    return (low if scale == "minmax" else max(low, high / RANGE)), high
