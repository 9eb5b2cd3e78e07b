"""The parts of a model, discovered by running it: layers, what each sub-block adds to the residual stream, final norm.

There is no table of architectures here. The module tree names the layers, and in one trial forward pass each
layer's output is traced back, operation by operation, to what was added to the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from openmav.backends.transformers.discovery.mlp_internals import MlpInternals

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


NOT_ONE_VECTOR = "the layer's output is not one vector per token"
Coefficient: TypeAlias = "float | Tensor"  # a number, or one per channel [width]


@dataclass(frozen=True)
class Term:
    """`coefficient` times the output of `module` (the first tensor of a tuple), as the layer's own code multiplies it.

    Without a module it is a constant of the layer's own: `coefficient` itself, [width].
    """

    module: nn.Module | None
    coefficient: Coefficient = 1.0


Part: TypeAlias = tuple[Term, ...]  # what a sub-block adds to the residual stream: the sum of its terms


@dataclass(frozen=True)
class Anatomy:
    """Row l of every tuple is layer l. None where the layer has no such part, or where it could not be found: `missing` says why.

    A layer's output is carry * input + attention + mlp + other.
    """

    layers: tuple[nn.Module, ...]
    final_norm: nn.Module | None
    attention: tuple[Part | None, ...]  # softmax attention, or the mixer used in its place
    mlp: tuple[Part | None, ...]
    attention_modules: tuple[nn.Module | None, ...]  # the modules that own the attention rows; None: no softmax attention
    kinds: tuple[
        str, ...
    ]  # "attention", "sliding attention", "state space", "linear attention", "other attention", "convolution", "recurrence", "none"
    other: tuple[Part | None, ...] = ()  # neither of them, for example a per-layer input; empty: none in any layer
    carry: tuple[Coefficient, ...] = ()  # 1 almost everywhere, empty: 1 everywhere
    idle: frozenset[int] = frozenset()  # layers that do not run on text alone: the residual stream skips them
    mlp_internals: MlpInternals = field(default_factory=MlpInternals)
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # {"mlp.out": {layer: reason}}
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """The last layer that runs, counted from the end: -1 unless that one is idle."""
        return max(at for at in range(len(self.layers)) if at not in self.idle) - len(self.layers)


def find(model: PreTrainedModel) -> Anatomy:
    """The anatomy of a causal language model, from its module tree and one forward pass over 14 tokens.

    Where a layer's parts are known, carry * input + attention + mlp + other equals its output up to the model's own rounding, and
    in fp32 where its weights can be converted; otherwise they are None and `missing` says why. The model is unchanged: no hook,
    training flag, random state or configuration changes.

    Raises LoadError if no stack of layers is found, or if the model can't run on token ids alone.
    """
    from openmav.backends.transformers.discovery.search import search

    return search(model)
