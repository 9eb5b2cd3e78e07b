"""A frame of numpy arrays, for a backend that does without torch: importing it takes a second, and most runs need none of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame, Layers

if TYPE_CHECKING:
    from torch import Tensor


class ArrayFrame(Frame):
    """Made like a Frame, with arrays in the place of tensors; `logits` and `sites` are tensors of the same memory when somebody asks."""

    @property
    def logits(self) -> Tensor:
        return as_tensor(self._numbers)

    @logits.setter
    def logits(self, numbers: Any) -> None:
        self._numbers: NDArray[np.float32] = numbers

    @property
    def sites(self) -> Mapping[str, Sequence[Tensor | None]]:
        return self._tensors

    @sites.setter
    def sites(self, arrays: Any) -> None:
        self._arrays: Mapping[str, Sequence[NDArray[Any] | None]] = arrays
        self._tensors = _Tensors(arrays)

    @property
    def raw(self) -> NDArray[np.float32]:
        return self._numbers

    def rows(self, site: str) -> Sequence[Any]:
        return self._arrays[site]


class _Tensors(Mapping[str, Sequence[Any]]):
    def __init__(self, arrays: Mapping[str, Sequence[NDArray[Any] | None]]) -> None:
        self._arrays = arrays

    def __getitem__(self, site: str) -> Sequence[Any]:
        rows = self._arrays[site]
        return Layers(as_tensor(rows.whole)) if isinstance(rows, Layers) else [None if row is None else as_tensor(row) for row in rows]

    def __contains__(self, site: object) -> bool:
        return site in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of the same memory."""
    import torch

    return torch.from_numpy(array)
