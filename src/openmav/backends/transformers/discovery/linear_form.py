"""How a tensor came to be, operation by operation, and a layer's output written as a sum of such tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Coefficient: TypeAlias = "float | Tensor"  # a number, or one per channel [width]


@dataclass(eq=False, slots=True)
class Node:
    """One value of a tensor; an operation that writes into the tensor makes a new one.

    "sum": the inputs, each times its number in `factors`. "scaled": the one input times (or, `inverse`, over) `by`. "same": the one
    input in another shape or float type. "made": any other operation on the inputs. "leaf": computed outside of the layer.
    """

    kind: Literal["sum", "scaled", "same", "made", "leaf"]
    tensor: Tensor
    inputs: tuple[Node, ...] = ()
    factors: tuple[float, ...] = ()
    by: Node | float = 1.0
    inverse: bool = False
    in_stream: bool = False  # a sum of which the layer's own input is one term
    constant: bool = False  # computed from weights alone
    opaque: bool = False  # the result of a matrix product, of attention, or of an operation that is not torch's own
    marks: int = 0
    kept: Tensor | None = None  # a copy, where the tensor was written to later

    @property
    def value(self) -> Tensor:
        return self.tensor if self.kept is None else self.kept

    def expanded(self) -> list[tuple[Node, Coefficient]]:
        """The inputs that it is the sum of, each with its factor; for "sum", "scaled" and "same"."""
        if self.kind == "sum":
            return [*zip(self.inputs, self.factors, strict=True)]
        if self.kind == "same":
            return [(self.inputs[0], 1.0)]
        value: Coefficient = number(self.by.value) if isinstance(self.by, Node) else float(self.by)
        return [(self.inputs[0], 1 / value if self.inverse else value)]


@dataclass
class LinearForm:
    """output = carry * input + the sum of coefficient * node; `steps` is how often that was rounded, `eps` of the coarsest float type."""

    carry: Coefficient = 0.0
    terms: list[tuple[Node, Coefficient]] = field(default_factory=list)
    steps: int = 0
    eps: float = 0.0


def number(tensor: Tensor) -> Coefficient:
    """A constant as a number or as one number per channel, fp32. A weight is not copied, so that training updates it."""
    if tensor.numel() == 1:
        return float(tensor)
    flat = tensor.detach().reshape(-1)
    return flat if flat.dtype == torch.float32 else flat.float()


def multiplied(a: Coefficient, b: Coefficient) -> Coefficient:
    if isinstance(a, float) and a == 1:
        return b
    if isinstance(b, float) and b == 1:
        return a
    return a * b
