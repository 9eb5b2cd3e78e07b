"""Input attribution for any model that can be run on ids and on embeddings: the methods, without any model's code.

gradient      input times gradient at the token embeddings. Simonyan et al. (2013); Shrikumar et al. (2016), "Not Just a Black Box".
integrated    integrated gradients, from the embedding of the reference token at every position to the text's own; see
              integrated_gradients.py.
              Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (2017).
occlusion     each token in turn is replaced by the reference token: f before minus f after. Zeiler and Fergus (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from openmav.backends.attribution import integrated_gradients
from openmav.backends.base import Progress
from openmav.errors import UsageError
from openmav.record import frozen
from openmav.record.attribution_result import METHODS, Explanation


class Passes(Protocol):
    """Runs a model over whole texts: no cache is read or written, and no state is kept."""

    reference: int  # the token used as a neutral replacement
    eps: float  # of the model's float type

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[tokens, width] fp32: the token embeddings."""

    def from_ids(self, rows: Tensor) -> Tensor:
        """[texts, tokens] ids -> [texts, vocab] fp32: the logits after each text; not differentiable."""

    def from_embeddings(self, ids: Sequence[int], rows: Tensor) -> Tensor:
        """[texts, tokens, width] fp32, used in place of the embeddings of `ids` -> [texts, vocab] fp32, differentiable."""

    def at_once(self, tokens: int, differentiable: bool) -> int:
        """How many texts of `tokens` tokens may be run at once within bounded memory; at least 1."""

    def differentiating(self) -> AbstractContextManager[object]:
        """Context manager: gradients of the embeddings only, none of the weights. Raises UsageError for a model without gradients."""


class Goal:
    """f: the logit of a token, or its difference from another token's logit."""

    def __init__(self, target_id: int, minus_id: int | None) -> None:
        self.target_id, self.minus_id = target_id, minus_id

    def __call__(self, logits: Tensor) -> Tensor:
        """[texts, vocab] -> [texts]."""
        of: Tensor = logits[:, self.target_id]
        return of if self.minus_id is None else of - logits[:, self.minus_id]


def explain(
    passes: Passes, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None
) -> tuple[Explanation, int]:
    """The explanation, and the token A: `target_id`, or the most likely one where that is None.

    `progress` is called between passes with a description and the share that is done; an exception in it ends the computation.
    Raises UsageError for an unknown method, or a model that does not support it.
    """
    if method not in METHODS:
        raise UsageError(f"unknown attribution method '{method}'. Known: {', '.join(METHODS)}")
    on_progress = progress or (lambda _what, _share: None)
    on_progress(f"attribution by {method}", 0.0)
    logits = passes.from_ids(torch.tensor([list(ids)]))
    target = int(logits[0].argmax()) if target_id is None else target_id
    goal = Goal(target, minus_id)
    total, count, reference = float("nan"), 1, passes.reference
    if method == "gradient":
        scores, reference = _gradient(passes, ids, goal), -1
    elif method == "occlusion":
        scores, count = _occlusion(passes, ids, goal, float(goal(logits)), on_progress)
    else:
        scores, total, count = _integrated(passes, ids, goal, on_progress)
    on_progress(f"attribution by {method}", 1.0)
    return Explanation(frozen(scores.float().numpy()), frozen(logits[0].numpy()), total, count, reference), target


def _gradient(passes: Passes, ids: Sequence[int], goal: Goal) -> Tensor:
    """[tokens]: embedding . gradient of f at it."""
    with passes.differentiating():
        given = passes.embed(ids)[None].requires_grad_()
        (slope,) = torch.autograd.grad(goal(passes.from_embeddings(ids, given)).sum(), given)
        return (given.detach() * slope)[0].cpu().double().sum(-1)


def _occlusion(
    passes: Passes, ids: Sequence[int], goal: Goal, whole: float, on_progress: Callable[[str, float | None], None]
) -> tuple[Tensor, int]:
    """[tokens]: f minus f with the reference token at each position; and the number of texts run. Positions that hold it already get 0."""
    scores = torch.zeros(len(ids), dtype=torch.float64)
    places = [at for at, token in enumerate(ids) if token != passes.reference]
    size = passes.at_once(len(ids), False)
    for start in range(0, len(places), size):
        block = places[start : start + size]
        rows = torch.tensor([list(ids)]).repeat(len(block), 1)
        rows[range(len(block)), block] = passes.reference
        scores[block] = whole - goal(passes.from_ids(rows)).double().cpu()
        on_progress(f"attribution by occlusion, {start + len(block)} of {len(places)} tokens", (start + len(block)) / len(places))
    return scores, len(places) + 1


def _integrated(
    passes: Passes, ids: Sequence[int], goal: Goal, on_progress: Callable[[str, float | None], None]
) -> tuple[Tensor, float, int]:
    """([tokens], f at the text minus f at the reference, number of texts run)."""

    def f(rows: Tensor) -> Tensor:
        on_progress(f"integrated gradients, {path.run} texts run", None)
        return goal(passes.from_embeddings(ids, rows))

    start, end = passes.embed([passes.reference] * len(ids)), passes.embed(ids)
    path = integrated_gradients.StraightPath(f, start, end, passes.at_once(len(ids), True), passes.eps)
    with passes.differentiating():
        scores, total = integrated_gradients.integrate(path)
    return scores, total, path.run
