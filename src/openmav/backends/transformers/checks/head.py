"""The head at load: whether its lens of the last layer is the model's logits, and how far parts can be followed to them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from openmav.backends.sites import HEAD_SITES
from openmav.backends.transformers.checks.passes import Pass
from openmav.backends.transformers.discovery.anatomy import NOT_ONE_VECTOR, Anatomy
from openmav.backends.transformers.head import linear_head
from openmav.backends.transformers.head.exact_head import ExactHead, difference, tolerance
from openmav.errors import words_of
from openmav.system.memory import out_of_memory

LINEAR_SITES = ("head.direction", "head.neurons")
NO_LENS = "the last layer's output is not one vector per token, so no other layer's output can replace it"


def check_head(
    model: PreTrainedModel, anatomy: Anatomy, ours: Pass
) -> tuple[ExactHead | None, dict[str, float], dict[str, dict[int, str]]]:
    """The head if its lens of the last layer is the model's logits; what was measured; what is missing."""
    everywhere = range(len(anatomy.layers))
    expected = torch.stack(ours.logits)
    if anatomy.missing.get("residual.after", {}).get(len(anatomy.layers) + anatomy.last) == NOT_ONE_VECTOR:
        return None, {}, {site: dict.fromkeys(everywhere, NO_LENS) for site in HEAD_SITES}
    try:
        head = ExactHead(model, anatomy.layers, ours.output, anatomy.carry, anatomy.last)
        error = difference(head.logits(torch.stack(ours.residuals)).cpu(), expected)
    except Exception as problem:
        if out_of_memory(problem):
            raise
        why = f"this model's own code does not run with its layers left out, as a lens needs ({words_of(problem, kind=True)})"
        return None, {}, {site: dict.fromkeys(everywhere, why) for site in HEAD_SITES}
    if not error <= tolerance(model.dtype):
        why = f"the lens of the last layer is not the model's logits (off by {error:.1g} of the largest)"
        return None, {"lens": error}, {site: dict.fromkeys(everywhere, why) for site in HEAD_SITES}
    head.shorten(anatomy.final_norm, model.get_output_embeddings(), torch.stack([*ours.residuals, *ours.residuals]).mul(1.5))
    missing: dict[str, dict[int, str]] = {}
    try:
        head.linear = _linear(model, anatomy, head, ours.residuals)
    except linear_head.NotLinearError as problem:
        missing |= {site: dict.fromkeys(everywhere, str(problem)) for site in LINEAR_SITES}
    else:
        missing |= {site: layers for site in LINEAR_SITES if (layers := _not_followed(anatomy))}
    return head, {"lens": error}, missing


def _not_followed(anatomy: Anatomy) -> dict[int, str]:
    """Layers whose parts can't be followed to the logits: up to the last one whose own parts are not known."""
    parts = enumerate(zip(anatomy.attention, anatomy.mlp, strict=True))
    unknown = [i for i, (a, m) in parts if a is None and m is None and i not in anatomy.idle]
    if not unknown:
        return {}
    why = f"what layer {unknown[-1]} adds is not known, so nothing up to there can be followed to the logits"
    return dict.fromkeys(range(unknown[-1] + 1), why)


def _linear(model: PreTrainedModel, anatomy: Anatomy, head: ExactHead, residuals: list[Tensor]) -> linear_head.LinearHead:
    """Fitted on the two real states and a combination of them."""
    states = torch.stack([*residuals, residuals[0] - 0.5 * residuals[1].flip(0)])
    rows = model.get_output_embeddings()
    return linear_head.find(model.config, rows, anatomy.final_norm, states, head.logits(states), tolerance(model.dtype))
