"""The head: from any residual stream to logits by llama.cpp's own operations, and what of it is a linear function.

The final norm is s(x) * w * C x + b, with C the subtraction of the mean or nothing; the head is a product with rows, a bias and a factor,
soft-capped or not. They are read from the graph's own parameters, and compared with the model's logits at load.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021); Geva et al. (2022) for neurons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Directions, Numbers
from openmav.backends.llamacpp.native import Native
from openmav.backends.llamacpp.native import Tensor as Struct
from openmav.backends.llamacpp.tail import Step, Tail, UnreadableError, Weight
from openmav.backends.llamacpp.tap import is_host
from openmav.backends.shared import linear_logits
from openmav.backends.shared.array_frame import as_tensor
from openmav.backends.shared.neuron_effects import NeuronEffects

UNIT = 127.0  # of a one-hot vector: llama.cpp's 8-bit activations hold it exactly


@dataclass
class LinearHead:
    """logit = factor * (rows[token] . norm(x)) + bias[token], before the soft cap."""

    matrix: Weight  # as the model multiplies by it
    rows: Weight  # the same numbers, which can be read row by row
    weight: NDArray[np.float32] | None  # of the norm, [width]
    shift: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None  # [vocab]
    norm: str  # RMS_NORM, NORM or ""
    eps: float
    factor: float
    cap: float | None

    @property
    def centred(self) -> bool:
        return self.norm == "NORM"

    def scale(self, x: NDArray[np.float32]) -> float:
        """s(x)."""
        if not self.norm:
            return 1.0
        return linear_logits.inverse_size(x, self.eps, self.centred)

    def weighted(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows if self.weight is None else rows * self.weight

    def directions(self, x: NDArray[np.float32], token_ids: Sequence[int], logits: NDArray[np.float32]) -> Directions:
        """See backends.base.Head; all of it arrays."""
        ids, rows = list(token_ids), self.rows.look_up(token_ids)
        bias = None if self.bias is None else self.bias[ids]
        lines: Any = linear_logits.directions(
            rows, self.weight, self.shift, bias, factor=self.factor, scale=self.scale(x), centred=self.centred
        )
        vectors, constants = lines
        own: Any = logits[ids]
        return Directions(vectors, constants, own if self.cap is None else vectors @ x + constants)


def linear(native: Native, tail: Tail, embeddings: int | None) -> LinearHead:
    """The head as the tail's operations say; `embeddings` is the address of the tensor of the same rows. Raises UnreadableError."""
    norm, eps, factor, cap = "", 0.0, 1.0, None
    weight, shift, bias, matrix, rows = None, None, None, None, None
    steps = list(tail.steps)
    for at, step in enumerate(steps):
        if step.op in ("RMS_NORM", "NORM") and rows is None and not norm and weight is None:
            norm, eps = step.op, float(step.numbers()[0])
        elif step.op == "MUL_MAT" and rows is None and step.weight is not None:
            matrix = Weight(tail.cpu, step.weight)
            rows = Weight(tail.cpu, _readable(native, step.weight, embeddings))
        elif step.op == "MUL" and rows is None and weight is None and step.weight is not None:
            weight = Weight(tail.cpu, step.weight).vector()
        elif step.op == "ADD" and step.weight is not None and (shift is None if rows is None else bias is None):
            value = Weight(tail.cpu, step.weight).vector()
            shift, bias = (value, bias) if rows is None else (shift, value / np.float32(factor))
        elif step.op == "SCALE" and step.numbers()[1] == 0:
            if rows is not None and _is_cap(native, steps[at:]):
                cap = float(steps[at + 2].numbers()[0])
                break
            factor *= float(step.numbers()[0])
        elif step.op != "CONT":
            raise UnreadableError(f"the logits are no linear function of the normed residual stream ({step.op})")
    if rows is None or matrix is None:
        raise UnreadableError("the rows of the head were not found")
    return LinearHead(matrix, rows, weight, shift, bias, norm, eps, factor, cap)


def _is_cap(native: Native, steps: Sequence[Step]) -> bool:
    """Whether these are a division by the cap, tanh, and a multiplication by it."""
    if len(steps) != 3 or [step.op for step in steps] != ["SCALE", "UNARY", "SCALE"]:
        return False
    code = int(np.frombuffer(steps[1].params, dtype=np.int32)[0])
    return bool(native.ggml.ggml_unary_op_name(code) == b"TANH" and abs(steps[0].numbers()[0] * steps[2].numbers()[0] - 1) < 1e-5)


def _readable(native: Native, address: int, embeddings: int | None) -> int:
    """A tensor with the same rows that can be read one by one."""
    if is_host(native, Struct.from_address(address)):
        return address
    if embeddings is not None and Struct.from_address(address).name == Struct.from_address(embeddings).name:
        return embeddings
    raise UnreadableError("the rows of the head can't be read: llama.cpp has packed them in another order")


class LlamaHead:
    """Satisfies backends.base.Head. `downs`: the last map of each layer's MLP, where its neurons can be followed."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.linear: LinearHead | None = None
        self.downs: Mapping[int, Weight] = {}
        self._effects = NeuronEffects()

    def logits(self, residuals: Any) -> Any:
        """See backends.base.Head."""
        return _like(residuals, self.tail.logits(_array(residuals)))

    def directions(self, residual: Any, token_ids: Sequence[int], logits: Any) -> Directions | None:
        """See backends.base.Head."""
        if self.linear is None:
            return None
        lines: Any = self.linear.directions(_array(residual), token_ids, _array(logits))
        return Directions(*(_like(residual, part) for part in (lines.vectors, lines.constants, lines.logits)))

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Any, residual: Any, count: int) -> tuple[Any, Any] | None:
        """See backends.base.Head. The effect of a unit of each neuron is cached."""
        if self.linear is None or layer not in self.downs:
            return None
        new = self._effects.missing(layer, ids, count)
        if new:
            self._effects.keep(layer, new, self._unit_logits(layer, new), count)
        factors = _array(hidden)[list(ids)] * np.float32(self.linear.scale(_array(residual)))
        tokens, logits = self._effects.of(layer, ids, factors, count)
        return _like(hidden, tokens), _like(hidden, logits)

    def _unit_logits(self, layer: int, ids: Sequence[int]) -> NDArray[np.float32]:
        """[n, vocab]: what one unit of each neuron adds to the logits, for a final norm of scale 1."""
        assert self.linear is not None
        down = self.downs[layer]
        units = np.zeros((len(ids), down.columns), dtype=np.float32)
        units[np.arange(len(ids)), list(ids)] = UNIT
        written = down.times(units) / np.float32(UNIT)
        x = self.linear.weighted(linear_logits.centre(written) if self.linear.centred else written).astype(np.float32)
        product: NDArray[np.float32] = np.float32(self.linear.factor) * self.linear.matrix.times(x)
        return product


def _array(values: Numbers) -> NDArray[np.float32]:
    return values if isinstance(values, np.ndarray) else values.float().cpu().numpy()


def _like(given: Numbers, result: NDArray[Any]) -> Any:
    """The result as an array for an array, as a tensor for a tensor."""
    return result if isinstance(given, np.ndarray) else as_tensor(result)
