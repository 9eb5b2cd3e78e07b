"""The effect of an MLP's neuron on the logits: the tokens whose logits it raises and lowers most.

A neuron writes its column of the last linear map into the residual stream, times its activation; the final norm, its scale
held, and the head turn that into logits. Columns are read by running the module on one-hot vectors, so that quantised and
transposed maps are read like any other. The effect per unit of activation is cached, so that it is computed once per neuron.
Source: Geva et al., "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from openmav.backends.shared.neuron_effects import NeuronEffects
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.head.linear_head import LinearHead

NO_WAY = "an operation that is not linear, such as a norm, stands between its neurons and the residual stream"
ROWS = 8192  # of the head that are turned to fp32 at a time
TOGETHER = 8  # neurons in a product: as many as a measure uses, or a multiple
SMALL = 500_000_000  # multiplications: up to so many a whole layer is computed at once, in tens of milliseconds


class Neurons:
    """Reads the neurons of `mlp_internals` through `linear`; `kept` as in Directions. The weights must not change."""

    def __init__(self, mlp_internals: MlpInternals, linear: LinearHead, kept: Sequence[float | Tensor] = ()) -> None:
        self.mlp_internals = mlp_internals
        self.linear = linear
        self.kept = kept
        self._effects = NeuronEffects()

    @property
    def unreadable(self) -> list[int]:
        """Layers that have neurons, but with more than a factor between them and the residual stream."""
        pairs = enumerate(zip(self.mlp_internals.last_linear, self.mlp_internals.factors, strict=True))
        return [layer for layer, (module, factor) in pairs if module is not None and factor is None]

    def knows(self, layer: int, ids: Sequence[int], count: int) -> bool:
        """Whether `tokens` needs no module of the model for these."""
        return self.mlp_internals.factors[layer] is None or not self._effects.missing(layer, ids, min(count, len(self.linear.rows)))

    def tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, residual: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """See backends.base.Head; both on the CPU."""
        if self.mlp_internals.factors[layer] is None:
            return None
        count = min(count, len(self.linear.rows))
        with torch.inference_mode():
            new = self._new(layer, ids, hidden, count)
            if new:
                self._effects.keep(layer, new, self._logits(self._written(layer, new, hidden)), count)
            scale = self.linear.norm.scale(residual.float().to(self.linear.norm.weight.device))
        tokens, logits = self._effects.of(layer, ids, hidden.float().cpu().numpy()[list(ids)] * np.float32(scale), count)
        return torch.from_numpy(tokens), torch.from_numpy(logits)

    def _new(self, layer: int, ids: Sequence[int], hidden: Tensor, count: int) -> list[int]:
        """The `ids` that are not cached yet; in a small model, all neurons of the layer that are not."""
        new = self._effects.missing(layer, ids, count)
        if new and len(hidden) * self.linear.rows.numel() <= SMALL:
            return self._effects.missing(layer, range(len(hidden)), count)
        return new

    def _written(self, layer: int, ids: Sequence[int], hidden: Tensor) -> Tensor:
        """[n, width] fp32: what one unit of each neuron adds to the residual stream after the last layer, without the map's bias."""
        module, factor = self.mlp_internals.last_linear[layer], self.mlp_internals.factors[layer]
        assert module is not None
        assert factor is not None
        units = hidden.new_zeros(len(ids) + 1, len(hidden))
        units[torch.arange(len(ids)), torch.tensor(ids)] = 1
        outputs: Tensor = module(units).float()
        written = outputs[:-1] - outputs[-1]
        for by in (factor, self.kept[layer + 1] if self.kept else 1.0):
            written = written * (by.to(written.device) if isinstance(by, Tensor) else by)
        return written

    def _logits(self, written: Tensor) -> Tensor:
        """[n, width] -> [n, vocab] fp32, for a final norm of scale 1."""
        norm, rows = self.linear.norm, self.linear.rows
        x = written.to(norm.weight.device)
        x = norm.weight * (x - x.mean(-1, keepdim=True) if norm.centred else x)
        x = torch.nn.functional.pad(x, (0, 0, 0, -len(x) % TOGETHER))  # so that its bits do not depend on the others in the batch
        parts = [x.to(rows.device) @ rows[at : at + ROWS].float().T for at in range(0, len(rows), ROWS)]
        return self.linear.factor * torch.cat(parts, -1)[: len(written)]
