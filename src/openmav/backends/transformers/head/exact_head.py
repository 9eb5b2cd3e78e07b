"""The exact head: from any layer's residual stream to logits, by the model's own forward with its layers left out.

The list of layers is replaced for one call by a single stand-in whose output is the wanted residuals, so that everything after the
layers (final norm, projections, multipliers, soft cap, bias) is the model's own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends.base import Directions
from openmav.backends.transformers.discovery.anatomy import Coefficient
from openmav.backends.transformers.head.linear_head import LinearHead
from openmav.backends.transformers.head.neurons import Neurons
from openmav.backends.transformers.loading import placement
from openmav.backends.transformers.loading.quantised import gradients_off
from openmav.system.memory import out_of_memory

TOLERANCE = 1e-4  # of the largest logit, in fp32: the allowed difference between the lens of the last layer and the model's logits


def tolerance(dtype: torch.dtype) -> float:
    """The allowed difference of logits computed in two ways, relative to the largest; coarser float types round more."""
    return max(TOLERANCE, 4 * torch.finfo(dtype).eps)


def difference(result: Tensor, expected: Tensor) -> float:
    """max |result - expected| / max |expected|."""
    return float((result - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


class _StandIn(nn.Module):
    """Returns `output` as a layer would; all other attributes are those of a real layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a submodule: its hooks and weights are not this one's
        self.__dict__["output"] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)

    def forward(self, *_args: object, **_kwargs: object) -> Any:
        return self.__dict__["output"]


class ExactHead:
    """Satisfies backends.base.Head. `output`: the output, tuple or tensor, of the layer `last`, the last that runs, in some forward pass.
    `carry`: see Anatomy.

    Raises LookupError where the layers can't be replaced.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], output: object, carry: Sequence[Coefficient] = (), last: int = -1
    ) -> None:
        self.model = model
        self.layer = layers[last]
        self.parent, self.name = _holder(model, layers)
        first = output[0] if isinstance(output, tuple | list) else output
        assert isinstance(first, Tensor)
        self.extra = len(output) - 1 if isinstance(output, tuple | list) else 0
        self.bare = isinstance(output, tuple | list) and self.extra == 0
        self._stand_in = _StandIn(self.layer)
        self._alone = nn.ModuleList([self._stand_in] * (len(layers) if last != -1 else 1))  # some of which the model may skip
        self._gradients_off = gradients_off(model)
        self.like = first[..., :0].reshape(0)  # the residual stream's float type and device
        self.kept = tuple(math.prod(carry[i:], start=1.0) for i in range(len(carry) + 1)) if carry else ()
        self.short: tuple[nn.Module, nn.Module] | None = None
        self.linear: LinearHead | None = None
        self.neurons: Neurons | None = None

    def logits(self, residuals: Tensor) -> Tensor:
        """[n, width] -> [n, vocab] fp32; each as a text of one token, which needs no mask."""
        streams = residuals.to(self.like)[:, None]
        if self.short is not None:
            with self._gradients_off():
                return _through(streams, *self.short)[:, 0].float()
        with self._gradients_off(), self._standing_in(streams):
            ids = torch.zeros(len(residuals), 1, dtype=torch.long, device=placement.input_device(self.model))
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, 0].float()

    def shorten(self, norm: nn.Module | None, output: nn.Module | None, states: Tensor) -> None:
        """Run only the final norm and the output embedding from now on, if that is bit-identical on `states` [n, width]."""
        if norm is None or output is None:
            return
        try:
            with self._gradients_off():
                short = _through(states.to(self.like)[:, None], norm, output)[:, 0].float()
        except Exception as error:  # something runs between the two, for example a projection to another width
            if out_of_memory(error):
                raise
            return
        if torch.equal(short, self.logits(states)):
            self.short = norm, output

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions | None:
        """See backends.base.Head."""
        if self.linear is None:
            return None
        result = self.linear.directions(residual, token_ids, logits)
        return replace(result, kept=self.kept) if self.kept else result

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, residual: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """See backends.base.Head."""
        return None if self.neurons is None else self.neurons.tokens(layer, ids, hidden, residual, count)

    def knows_neurons(self, layer: int, ids: Sequence[int], count: int) -> bool:
        """Whether the answer of neuron_tokens is cached but for the activations."""
        return self.neurons is None or self.neurons.knows(layer, ids, count)

    @contextmanager
    def _standing_in(self, residuals: Tensor) -> Iterator[None]:
        modules, state = self.parent._modules, self._stand_in.__dict__
        layers = modules[self.name]
        state["output"] = (residuals, *[None] * self.extra) if self.extra or self.bare else residuals
        modules[self.name] = self._alone
        try:
            yield
        finally:
            modules[self.name] = layers
            state["output"] = None


def _through(streams: Tensor, norm: nn.Module, output: nn.Module) -> Tensor:
    """[n, 1, width] -> [n, 1, vocab]."""
    logits: Tensor = output(norm(streams))
    return logits


def _holder(model: nn.Module, layers: Sequence[nn.Module]) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and its name there. Raises LookupError."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) and child[0] is layers[0] and child[-1] is layers[-1]:
                return parent, name
    raise LookupError("the layers are not one list of modules")
