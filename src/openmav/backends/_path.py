"""Integrated gradients on a straight way that is cut where it is rough.

The way from the reference to the text is cut into parts. Along each part captum integrates the gradient at a few points, and the
sum is compared with what f really gains there. Where the two differ, the part is cut in half and both halves are done anew: deep
models have places on the way where f leaps within a thousandth of it, and points spread evenly would miss them. The scores of all
parts add up to integrated gradients of the whole way, since the way is straight.

Where f is not continuous (a mixture of experts chooses others), no gradient tells the leap: such a part is cut down to SHORTEST, then
left, and the scores miss their total by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openmav.explained import COMPLETE

PARTS = 16  # to begin with
POINTS = 4  # of Gauss and Legendre in each part
MOST = 4096  # texts; no more cuts after that
SHORTEST = 2.0**-16  # of the way


class Straight:
    """The way between two embeddings [tokens, width]; `f` takes [texts, tokens, width] and gives [texts]."""

    def __init__(self, f: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, at_once: int, eps: float) -> None:
        """`at_once`: texts that may be run together; `eps`: of the float type in which f is computed.

        Raises ImportError without captum.
        """
        from captum.attr import IntegratedGradients

        self._f, self._start, self._end = f, start, end
        self._at_once, self.eps = at_once, eps
        self._gradients = IntegratedGradients(self._run)
        self.run = 0  # texts so far

    def _run(self, rows: Tensor) -> Tensor:
        self.run += len(rows)
        return self._f(rows)

    def at(self, places: Sequence[float]) -> Tensor:
        """[places, tokens, width]."""
        share = torch.tensor(places, device=self._start.device, dtype=self._start.dtype)
        return self._start + share[:, None, None] * (self._end - self._start)

    def heights(self, places: Sequence[float]) -> dict[float, float]:
        """f at these places."""
        found: dict[float, float] = {}
        for first in range(0, len(places), self._at_once):
            some = places[first : first + self._at_once]
            with torch.no_grad():
                found |= zip(some, self._run(self.at(some)).tolist())
        return found

    def scores(self, cuts: Sequence[tuple[float, float]]) -> list[Tensor]:
        """Integrated gradients along each part, [tokens] fp64."""
        found: list[Tensor] = []
        for first in range(0, len(cuts), self._at_once):
            some = cuts[first : first + self._at_once]
            begins, ends = (self.at([cut[side] for cut in some]) for side in (0, 1))
            made = self._gradients.attribute(ends, begins, n_steps=POINTS, internal_batch_size=self._at_once)
            found += made.detach().double().sum(-1).cpu().unbind()
        return found


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the way, its scores, and by how much they miss what f gains along it."""

    begin: float
    end: float
    scores: Tensor
    miss: float

    def halves(self) -> list[tuple[float, float]]:
        middle = (self.begin + self.end) / 2
        return [(self.begin, middle), (middle, self.end)]


def integrate(way: Straight) -> tuple[Tensor, float]:
    """([tokens] fp64, f at the end less f at the start)."""
    cuts = [(at / PARTS, (at + 1) / PARTS) for at in range(PARTS)]
    heights = way.heights([0.0, *(end for _, end in cuts)])
    total = heights[1.0] - heights[0.0]
    parts: list[Part] = []
    while cuts:
        parts += _done(way, cuts, heights)
        rough = _rough(parts, total, 4 * way.eps * max(map(abs, heights.values()))) if way.run < MOST else []
        cuts = [half for part in rough for half in part.halves()]
        heights |= way.heights([middle for part in rough for _, middle in part.halves()[:1]])
        parts = [part for part in parts if part not in rough]
    return torch.stack([part.scores for part in parts]).sum(0), total


def _done(way: Straight, cuts: Sequence[tuple[float, float]], heights: dict[float, float]) -> list[Part]:
    gains = [heights[end] - heights[begin] for begin, end in cuts]
    scores = way.scores(cuts)
    return [Part(*cut, own, abs(float(own.sum()) - gain)) for cut, own, gain in zip(cuts, scores, gains)]


def _rough(parts: Sequence[Part], total: float, noise: float) -> list[Part]:
    """The parts to cut: the worst ones, so that the rest together misses less than is allowed."""
    left, found = sum(part.miss for part in parts), []
    for part in sorted(parts, key=lambda part: -part.miss):
        if left <= COMPLETE * abs(total) or not part.miss > noise:
            break
        left -= part.miss
        if part.end - part.begin > SHORTEST:
            found.append(part)
    return found
