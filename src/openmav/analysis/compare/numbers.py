"""The numbers of a comparison: a divergence of two distributions, and how far two activations are apart; all in fp64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from openmav.analysis.compare import Apart
from openmav.backends.base import Frame


def divergence(a: Tensor, b: Tensor) -> float:
    """KL(A || B) = sum p_A (ln p_A - ln p_B) in nats of two [vocab] logits; a token that A rules out adds nothing."""
    log_a, log_b = (torch.log_softmax(logits.double(), dim=-1) for logits in (a, b))
    terms = torch.where(log_a == float("-inf"), 0.0, log_a.exp() * (log_a - log_b))
    total = float(terms.sum())
    return max(total, 0.0) if total == total else total


def apart(a: Frame, b: Frame, site: str) -> Apart:
    """The site of each layer in two forward passes."""
    rows = zip(a.sites[site], b.sites[site], a.sites["residual.after"], strict=True)
    columns = np.array([_one(*row) for row in rows], dtype=np.float64).reshape(-1, 3)
    return Apart(*columns.T)


def _one(a: Tensor | None, b: Tensor | None, residual: Tensor | None) -> tuple[float, float, float]:
    """‖a - b‖₂, ‖a - b‖₂ / ‖residual‖₂, cosine of a and b."""
    if a is None or b is None:
        return (float("nan"),) * 3
    one, other = (x.detach().to("cpu", torch.float64).reshape(-1) for x in (a, b))
    difference = float((one - other).norm())
    scale = float("nan") if residual is None else float(residual.detach().to("cpu", torch.float64).norm())
    lengths = float(one.norm()) * float(other.norm())
    share = 0.0 if difference == 0 else difference / scale if scale else float("inf")
    return difference, share, float(one @ other) / lengths if lengths else float("nan")
