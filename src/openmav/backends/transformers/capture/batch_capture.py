"""What is captured of a forward pass that feeds one token to each of several texts: the sites of one text at a time."""

from __future__ import annotations

from torch import Tensor, nn

from openmav.backends.transformers.capture.attention import Rows
from openmav.backends.transformers.capture.hooks import Capture, Site


class BatchCapture(Capture):
    """Keeps [texts, width] of each module; `sites_of` reads them as `Capture.sites` does."""

    _at = 0

    def sites_of(self, at: int, rows: Rows) -> dict[str, Site]:
        """The wanted sites of the text in this row of the batch, whose attention rows are `rows`."""
        self._at, self.rows = at, rows
        return self.sites()

    def _kept(self, x: Tensor) -> Tensor:
        kept = x.reshape(-1, x.shape[-1])
        return kept.clone() if self.mlp_internals.overwrites else kept

    def _output(self, module: nn.Module) -> Tensor | None:
        return self._of_this(self._outputs.get(module))

    def _input(self, module: nn.Module) -> Tensor | None:
        return self._of_this(self._inputs.get(module))

    def _of_this(self, kept: Tensor | None) -> Tensor | None:
        return None if kept is None else kept.reshape(-1, kept.shape[-1])[self._at]
