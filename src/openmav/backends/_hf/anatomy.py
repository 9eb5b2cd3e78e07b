"""The parts of a model, found by looking at it: layers, what each sub-block adds to the residual stream, final norm.

There is no table of architectures here. The module tree names the layers, one trial forward pass shows what each layer adds
to the residual stream, and the finding is checked before anyone relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Term:
    """`coefficient` times the output of `module` (the first tensor of a tuple); None stands for the layer's own input."""

    module: nn.Module | None
    coefficient: float = 1.0


Part: TypeAlias = tuple[Term, ...]  # what a sub-block adds to the residual stream: the sum of its terms


@dataclass(frozen=True)
class Anatomy:
    """Row l of every tuple is layer l. None where the layer has no such part, or where it could not be found: `missing` says why."""

    layers: tuple[nn.Module, ...]
    final_norm: nn.Module | None
    attention: tuple[Part | None, ...]  # softmax attention, or the mixer that stands in its place
    mlp: tuple[Part | None, ...]
    attention_modules: tuple[nn.Module | None, ...]  # the modules that own the attention rows; None: no softmax attention
    kinds: tuple[str, ...]  # "attention", "sliding attention", "state space", "linear attention", "convolution", "recurrence", "none"
    carry: tuple[float, ...] = ()  # a layer gives carry * what came in + attention + mlp; 1 almost everywhere, empty: 1 everywhere
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # {"mlp.out": {layer: reason}}
    notes: tuple[str, ...] = ()


def find(model: PreTrainedModel) -> Anatomy:
    """The anatomy of a causal language model, by its module tree and one forward pass over 14 tokens.

    Where a layer's parts are found, carry * its input + attention + mlp equals its output to the model's own rounding; where no
    sum of module outputs does, they are None and `missing` says why. The model is left as it was: no hook,
    training flag, random state or configuration changes.

    Raises LoadError if no stack of layers is found, or if the model can't run on token ids alone.
    """
    from openmav.backends._hf._search import search

    return search(model)
