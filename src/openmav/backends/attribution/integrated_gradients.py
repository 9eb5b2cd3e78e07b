"""Integrated gradients on a straight path that is split where the integral is inaccurate.

The path from the reference to the text is split into parts. On each part the gradient is integrated by Gauss-Legendre quadrature, and
the result is compared with the change of f along the part. Where the two differ, the part is halved and both halves are integrated
again: deep models have points where f changes sharply within a thousandth of the path, which evenly spaced points would miss. The
scores of all parts add up to integrated gradients of the whole path, since the path is straight.

Where f is not continuous (a mixture of experts selects other experts), gradients do not contain the jump: such a part is split down to
SHORTEST and then left, and the scores miss their total by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openmav.record.attribution_result import COMPLETE

PARTS = 16  # to begin with
POINTS = 4  # of the quadrature in each part
MOST = 4096  # texts; no more splits after that
SHORTEST = 2.0**-16  # of the path's length


class StraightPath:
    """The path between two embeddings [tokens, width]; `f` maps [texts, tokens, width] to [texts]."""

    def __init__(self, f: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, at_once: int, eps: float) -> None:
        """`at_once`: texts that may be run together; `eps`: of the float type in which f is computed."""
        self._f, self._start, self._end = f, start, end
        self._at_once, self.eps = at_once, eps
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
        heights: dict[float, float] = {}
        for first in range(0, len(places), self._at_once):
            some = places[first : first + self._at_once]
            with torch.no_grad():
                heights |= zip(some, self._run(self.at(some)).tolist())
        return heights

    def slopes(self, places: Sequence[float]) -> Tensor:
        """[places, tokens] fp64: the derivative of f along the path at these places, by token."""
        slopes: list[Tensor] = []
        for first in range(0, len(places), self._at_once):
            rows = self.at(places[first : first + self._at_once]).requires_grad_()
            (gradient,) = torch.autograd.grad(self._run(rows).sum(), rows)
            slopes.append((gradient * (self._end - self._start)).detach().cpu().double().sum(-1))  # not every accelerator has fp64
        return torch.cat(slopes)

    def scores(self, cuts: Sequence[tuple[float, float]]) -> list[Tensor]:
        """Integrated gradients along each part, [tokens] fp64."""
        nodes, weights = gauss_legendre(POINTS)
        slopes = self.slopes([begin + (end - begin) * node for begin, end in cuts for node in nodes])
        means = torch.einsum("cpt,p->ct", slopes.view(len(cuts), POINTS, -1), torch.tensor(weights, dtype=torch.float64))
        return [(end - begin) * mean for (begin, end), mean in zip(cuts, means, strict=True)]


def gauss_legendre(points: int) -> tuple[list[float], list[float]]:
    """(nodes, weights) on [0, 1]: exact for polynomials up to degree 2 * points - 1. The weights sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return ((1 + nodes) / 2).tolist(), (weights / 2).tolist()


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the path, its scores, and by how much they miss the change of f along it."""

    begin: float
    end: float
    scores: Tensor
    miss: float

    def halves(self) -> list[tuple[float, float]]:
        middle = (self.begin + self.end) / 2
        return [(self.begin, middle), (middle, self.end)]


def integrate(path: StraightPath) -> tuple[Tensor, float]:
    """([tokens] fp64, f at the end minus f at the start)."""
    cuts = [(at / PARTS, (at + 1) / PARTS) for at in range(PARTS)]
    heights = path.heights([0.0, *(end for _, end in cuts)])
    total = heights[1.0] - heights[0.0]
    parts: list[Part] = []
    while cuts:
        parts += _done(path, cuts, heights)
        rough = _rough(parts, total, 4 * path.eps * max(map(abs, heights.values()))) if path.run < MOST else []
        cuts = [half for part in rough for half in part.halves()]
        heights |= path.heights([middle for part in rough for _, middle in part.halves()[:1]])
        parts = [part for part in parts if part not in rough]
    return torch.stack([part.scores for part in parts]).sum(0), total


def _done(path: StraightPath, cuts: Sequence[tuple[float, float]], heights: dict[float, float]) -> list[Part]:
    gains = [heights[end] - heights[begin] for begin, end in cuts]
    scores = path.scores(cuts)
    return [Part(*cut, own, abs(float(own.sum()) - gain)) for cut, own, gain in zip(cuts, scores, gains)]


def _rough(parts: Sequence[Part], total: float, noise: float) -> list[Part]:
    """The parts to split: the worst ones, so that the rest together stays within the tolerance."""
    left, rough = sum(part.miss for part in parts), []
    for part in sorted(parts, key=lambda part: -part.miss):
        if left <= COMPLETE * abs(total) or not part.miss > noise:
            break
        left -= part.miss
        if part.end - part.begin > SHORTEST:
            rough.append(part)
    return rough
