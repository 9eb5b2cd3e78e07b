"""Which module outputs add up to what a layer changes in the residual stream: least squares on the samples of a trial.

Every number is weighted by the rounding that the model itself does there (the eps of its float type times the size of the
residual stream), so that an error of 1 means "as good as this float type can be", in fp32 as in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from openmav.backends._hf._trial import LayerTrial

RELATIVE = 1e-4  # of the change itself: an error below this is exact enough whatever the float type
MOST_TERMS = 4
CARRY = ""  # the name of the layer's own input among the outputs: a coefficient of it rescales the residual stream
NEAR = 0.03  # a coefficient this close (relative) to a known value is tried as that value


@dataclass(frozen=True)
class Solution:
    """Coefficients of the named outputs. `error` is in units of the model's rounding, `relative` in units of the change."""

    terms: dict[str, float]
    error: float
    relative: float

    @property
    def holds(self) -> bool:
        """Exact enough, and no term is there for show."""
        return (self.error <= 1 or self.relative <= RELATIVE) and all(abs(c) > RELATIVE for c in self.terms.values())


@dataclass
class Problem:
    """Weighted samples of one or more alike layers below each other: `change` [numbers], `outputs` [numbers, names]."""

    names: list[str]
    change: Tensor
    outputs: Tensor

    def __post_init__(self) -> None:
        self.gram = self.outputs.T @ self.outputs
        self.shadow = self.outputs.T @ self.change
        self.size = float(self.change @ self.change)

    def check(self, terms: dict[str, float]) -> Solution:
        """How well these coefficients explain the change."""
        rest = self.change.clone()
        for name, coefficient in terms.items():
            rest -= coefficient * self.outputs[:, self.names.index(name)]
        left = float(rest @ rest)
        return Solution(terms, (left / max(len(rest), 1)) ** 0.5, (left / self.size) ** 0.5 if self.size else left**0.5)

    def solve(self, chosen: Sequence[int], known: Sequence[float]) -> Solution:
        """The best coefficients for the chosen outputs, replaced by known values where those explain the change as well."""
        index = list(chosen)
        free = torch.linalg.lstsq(self.gram[index][:, index], self.shadow[index, None], driver="gelsd").solution[:, 0].tolist()
        fitted = self.check({self.names[i]: c for i, c in zip(index, free)})
        snapped = self.check({self.names[i]: nearest(c, known) for i, c in zip(index, free)})
        return snapped if snapped.holds and snapped.error <= max(2 * fitted.error, 1e-2) else fitted

    def promising(self, size: int) -> Iterator[list[int]]:
        """Combinations of `size` outputs whose best fit leaves next to nothing, the best first."""
        subsets = torch.tensor(list(combinations(range(len(self.names)), size)))
        if len(subsets) == 0:
            return
        grams = self.gram[subsets[:, :, None], subsets[:, None, :]]
        scale = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-300
        shadows = self.shadow[subsets]
        eye = torch.eye(size, dtype=grams.dtype)
        best = torch.linalg.solve(grams / scale + 1e-14 * eye, shadows[:, :, None] / scale)[:, :, 0]
        left = self.size - (best * shadows).sum(1)
        limit = max(4 * len(self.change), 4 * RELATIVE**2 * self.size, 1e-11 * self.size)
        for i in left.argsort().tolist():
            if left[i] > limit:
                return
            yield subsets[i].tolist()


def nearest(value: float, known: Sequence[float]) -> float:
    """The known value closest to this one if it is close, else the value."""
    best = min(known, key=lambda k: abs(k - value))
    return best if abs(best - value) <= NEAR * abs(best) else value


def problem(layers: Sequence[LayerTrial], names: Sequence[str]) -> Problem:
    """One Problem for layers that all have these modules; CARRY may be among the names."""
    changes, outputs = [], []
    for layer in layers:
        came, went = layer.came_in, layer.went_out
        assert came is not None
        assert went is not None
        change = went - came
        rounding = came.abs() + went.abs() + 2 * change.square().mean(1, keepdim=True).sqrt()
        weight = 1 / (4 * layer.eps * rounding + 1e-30)
        changes.append((change * weight).flatten())
        outputs.append(torch.stack([(_made(layer, name) * weight).flatten() for name in names], 1))
    return Problem(list(names), torch.cat(changes), torch.cat(outputs))


def _made(layer: LayerTrial, name: str) -> Tensor:
    made = layer.calls[name].made if name else layer.came_in
    assert made is not None
    return made


def without_copies(layers: Sequence[LayerTrial], names: Sequence[str]) -> list[str]:
    """Of outputs that are equal everywhere only the outermost: the one whose path is shortest, then the first."""
    kept: list[str] = []
    for name in sorted(names, key=lambda n: n.count(".")):
        if not any(all(torch.equal(_made(layer, name), _made(layer, other)) for layer in layers) for other in kept):
            kept.append(name)
    return kept


def explain(task: Problem, anchors: Sequence[str], good: Callable[[dict[str, float]], bool], known: Sequence[float]) -> Solution | None:
    """The outputs whose weighted sum is the change.

    The outermost sub-blocks (`anchors`) are tried first, then ever larger combinations; one more term counts only if it
    halves the error. `good` says whether a set of terms makes sense. None if nothing explains the change.
    """
    direct = task.solve([task.names.index(name) for name in anchors if name in task.names], known) if anchors else None
    if direct and direct.holds and good(direct.terms):
        return direct
    best: Solution | None = None
    for size in range(1, MOST_TERMS + 1):
        found = _best(task, size, good, known)
        if found and (best is None or found.error < 0.5 * best.error):
            best = found
        elif best is not None:
            return best
    return best


def _best(task: Problem, size: int, good: Callable[[dict[str, float]], bool], known: Sequence[float]) -> Solution | None:
    """The most exact solution with this many terms; among equally exact ones the outermost modules."""
    tried = [task.solve(index, known) for index in task.promising(size)]
    tried = [s for s in tried if s.holds and good(s.terms)]
    if not tried:
        return None
    limit = 1.5 * min(s.error for s in tried) + 1e-2
    return min((s for s in tried if s.error <= limit), key=lambda s: sum(name.count(".") for name in s.terms))
