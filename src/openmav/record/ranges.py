"""Layers in words."""

from __future__ import annotations

from collections.abc import Iterable


def ranges(layers: Iterable[int]) -> str:
    """ "layer 3", "layers 0-4, 7"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    named = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"layer {named}" if len(runs) == 1 and len(runs[0]) == 1 else f"layers {named}"
