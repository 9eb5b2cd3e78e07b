"""Input attribution over any model that can be run on ids and on embeddings: the methods, with no model in them.

gradient      input times gradient at the token embeddings. Simonyan et al. (2013); Shrikumar et al. (2016), "Not Just a Black Box".
integrated    integrated gradients, from the embedding of the reference token at every place to the text's own; see _path.py.
              Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (2017).
occlusion     the reference token in the place of each token in turn: f before, less f after. Zeiler and Fergus (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from openmav.backends import _path
from openmav.backends._base import Progress
from openmav.errors import UsageError
from openmav.explained import METHODS, Explanation
from openmav.record import frozen

NEEDS_CAPTUM = "integrated gradients need captum: pip install 'openmav[attribution]'; gradient and occlusion work without it"


class Passes(Protocol):
    """Runs a model over whole texts: no cache is read or written, and nothing is kept."""

    reference: int  # the token that stands for "nothing here"
    eps: float  # of the model's float type

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[tokens, width] fp32: what the model makes of these tokens first."""

    def from_ids(self, rows: Tensor) -> Tensor:
        """[texts, tokens] ids -> [texts, vocab] fp32: the logits after each text; not differentiable."""

    def from_embeddings(self, ids: Sequence[int], rows: Tensor) -> Tensor:
        """[texts, tokens, width] fp32 in the place of the embeddings of `ids` -> [texts, vocab] fp32, differentiable."""

    def at_once(self, tokens: int, differentiable: bool) -> int:
        """How many texts of so many tokens may be run at once, so that memory stays bounded; at least 1."""

    def differentiating(self) -> AbstractContextManager[object]:
        """Inside, no weight takes part in the gradients. Raises UsageError for a model that gives none, in one line."""


class Goal:
    """f: the logit of a token, or its lead over another one."""

    def __init__(self, target_id: int, minus_id: int | None) -> None:
        self.target_id, self.minus_id = target_id, minus_id

    def __call__(self, logits: Tensor) -> Tensor:
        """[texts, vocab] -> [texts]."""
        of: Tensor = logits[:, self.target_id]
        return of if self.minus_id is None else of - logits[:, self.minus_id]


def explain(
    passes: Passes, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None
) -> tuple[Explanation, int]:
    """The explanation, and the token A: `target_id`, or the likeliest one where that is None.

    `progress` is called between passes, with words and the share that is done; what it raises ends the work.
    Raises UsageError for an unknown method, a model that can't give what it needs, or a package that is missing.
    """
    if method not in METHODS:
        raise UsageError(f"unknown attribution method '{method}'. Known: {', '.join(METHODS)}")
    tell = progress or (lambda _what, _share: None)
    tell(f"attribution by {method}", 0.0)
    logits = passes.from_ids(torch.tensor([list(ids)]))
    target = int(logits[0].argmax()) if target_id is None else target_id
    goal = Goal(target, minus_id)
    total, count, reference = float("nan"), 1, passes.reference
    if method == "gradient":
        scores, reference = _gradient(passes, ids, goal), -1
    elif method == "occlusion":
        scores, count = _occlusion(passes, ids, goal, float(goal(logits)), tell)
    else:
        scores, total, count = _integrated(passes, ids, goal, tell)
    tell(f"attribution by {method}", 1.0)
    return Explanation(frozen(scores.float().numpy()), frozen(logits[0].numpy()), total, count, reference), target


def _gradient(passes: Passes, ids: Sequence[int], goal: Goal) -> Tensor:
    """[tokens]: embedding . gradient of f at it."""
    with passes.differentiating():
        given = passes.embed(ids)[None].requires_grad_()
        (slope,) = torch.autograd.grad(goal(passes.from_embeddings(ids, given)).sum(), given)
        return (given.detach() * slope).double().sum(-1)[0].cpu()


def _occlusion(
    passes: Passes, ids: Sequence[int], goal: Goal, whole: float, tell: Callable[[str, float | None], None]
) -> tuple[Tensor, int]:
    """[tokens]: f, less f with the reference token in each place; and the texts that were run. A place that holds it already has 0."""
    scores = torch.zeros(len(ids), dtype=torch.float64)
    places = [at for at, token in enumerate(ids) if token != passes.reference]
    size = passes.at_once(len(ids), False)
    for start in range(0, len(places), size):
        block = places[start : start + size]
        rows = torch.tensor([list(ids)]).repeat(len(block), 1)
        rows[range(len(block)), block] = passes.reference
        scores[block] = whole - goal(passes.from_ids(rows)).double().cpu()
        tell(f"attribution by occlusion, {start + len(block)} of {len(places)} tokens", (start + len(block)) / len(places))
    return scores, len(places) + 1


def _integrated(passes: Passes, ids: Sequence[int], goal: Goal, tell: Callable[[str, float | None], None]) -> tuple[Tensor, float, int]:
    """([tokens], f at the text less f at the reference, texts that were run)."""

    def f(rows: Tensor) -> Tensor:
        tell(f"integrated gradients, {way.run} texts run", None)
        return goal(passes.from_embeddings(ids, rows))

    start, end = passes.embed([passes.reference] * len(ids)), passes.embed(ids)
    try:
        way = _path.Straight(f, start, end, passes.at_once(len(ids), True), passes.eps)
    except ImportError as error:
        raise UsageError(NEEDS_CAPTUM) from error
    with passes.differentiating():
        scores, total = _path.integrate(way)
    return scores, total, way.run
