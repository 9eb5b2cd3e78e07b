"""What is found of a tiny model: the figures and their limits, the text that they are of, and how an error is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from backends.tiny_configs import TOKENS, VOCAB
from openmav.backends.base import Frame
from openmav.measures.base import Context

DECODED = 6
PROMPT = TOKENS - DECODED
PIECE = 200  # tokens of the prompt that are read at a time
BACK = 3
MASKED = -1e30  # logits below this are masked
LIMITS = {  # what each figure may be; see the columns of docs/architectures.md
    "logits": 4.0,
    "generate": 4.0,
    "tokens": 0.0,
    "told": 0.0,
    "rows": 4.0,
    "entropy": 4.0,
    "residual": 0.0,
    "parts": 2.0,
    "named": 2.0,
    "sum": 1.0,
    "norms": 4.0,
    "lens": 4.0,
    "back": 0.0,
    "bits": 0.0,
    "left": 0.0,
    "ablation": 4.0,
}


@dataclass
class Report:
    """Of one type in one float type. `errors`: the largest over layers and tokens. `none`: {what: reason}, as mav says it."""

    errors: dict[str, float] = field(default_factory=dict)
    none: dict[str, str] = field(default_factory=dict)
    refused: str = ""  # mav does not open the model, and why
    cannot: str = ""  # transformers itself does not build it, or can't run it on text alone
    failed: str = ""  # what was raised
    notes: tuple[str, ...] = ()
    thresholds: dict[str, int] = field(default_factory=dict)  # lengths at which the model changes something, all crossed
    layers: int = 0
    own: float = 0.0  # the error of transformers' own full pass in this float type, in eps

    @property
    def wrong(self) -> dict[str, float]:
        """The figures that are over their limit."""
        return {name: error for name, error in self.errors.items() if not error <= LIMITS[name]}

    @property
    def good(self) -> bool:
        return not self.wrong and not self.failed

    def worst(self, name: str, error: float) -> None:
        self.errors[name] = max(self.errors.get(name, 0.0), error) if error == error else error


def text() -> list[int]:
    """The prompt: ordinary tokens, none of the special ones at both ends of the vocabulary."""
    return torch.randint(3, VOCAB - 40, (PROMPT,), generator=torch.Generator().manual_seed(11)).tolist()


def error_of(found: Tensor, expected: Tensor) -> float:
    """Of the difference, relative; what is masked by the most negative number counts only if it is masked in one of them."""
    masked = expected < MASKED
    if not torch.equal(masked, found < MASKED):
        return float("inf")
    found, expected = (x.double().masked_fill(masked, 0) for x in (found, expected))
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def context(frame: Frame) -> Context:
    probs = frame.logits.softmax(-1)
    return Context(frame.logits, probs, probs, probs.argsort(descending=True), int(probs.argmax()))
