"""One line about a generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from openmav.record import Step, mean_surprisal


def tokens_per_second(steps: Sequence[Step]) -> float:
    """By the time that the model, capture and sampling took; waiting and pauses do not count. NaN for no tokens."""
    seconds = sum(step.timing.total for step in steps)
    return len(steps) / seconds if seconds > 0 else math.nan


def summary(steps: Sequence[Step]) -> str:
    """Such as "200 tokens · 22.4 tokens/s · mean surprisal 1.92 nats · perplexity 6.8"."""
    parts = [f"{len(steps)} token" + "s" * (len(steps) != 1)]
    if steps:
        mean = mean_surprisal(list(steps))
        perplexity = math.exp(mean) if mean < 700 else math.inf
        parts += [f"{tokens_per_second(steps):.1f} tokens/s", f"mean surprisal {mean:.2f} nats", f"perplexity {perplexity:.1f}"]
    return " · ".join(parts)
