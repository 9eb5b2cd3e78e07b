"""Matrix products of several rows with the bits that each row has alone: row by row, a block of the weights at a time.

A product of sixteen rows sums in another order than a product of one, and the difference grows from layer to layer. The time of a
single row goes into reading the weights from memory, so sixteen that share a block in the processor's cache are quick as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

BLOCK = 1 << 21  # bytes of weights that all rows are multiplied with before the next are read
OUTPUTS = 64  # a block has a multiple of so many: the bits of a product depend on where its weights begin


class RowProducts(TorchFunctionMode):
    """Within it `linear` and `addmm` take the rows of their input one at a time."""

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.linear and not kwargs.keys() - {"bias"}:
            x, weight, *rest = args
            if x.shape[:-1].numel() > 1 and weight.ndim == 2:
                return _linear(x, weight, rest[0] if rest else kwargs.get("bias"))
        elif function is torch.addmm and not kwargs and args[1].shape[0] > 1:
            return torch.cat([torch.addmm(args[0], row, args[2]) for row in _rows(args[1])])
        return function(*args, **kwargs)


def _rows(x: Tensor) -> list[Tensor]:
    """[..., width] -> a [1, width] for each row, at addresses as round as those of a tensor of its own."""
    return [row if row.data_ptr() % OUTPUTS == 0 else row.clone() for row in torch.split(x.reshape(-1, x.shape[-1]), 1)]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    outputs = weight.shape[0]
    size = max(OUTPUTS, BLOCK // (weight[0].nbytes * OUTPUTS) * OUTPUTS) if weight.device.type == "cpu" else outputs
    rows, linear = _rows(x), torch.nn.functional.linear
    blocks = []
    for at in range(0, outputs, size):
        part, added = weight[at : at + size], None if bias is None else bias[at : at + size]
        blocks.append(torch.cat([linear(row, part, added) for row in rows]))
    whole = blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1)
    return whole.view(*x.shape[:-1], outputs)
