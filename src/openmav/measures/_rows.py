"""Attention rows as numbers, shared by the measures that read them."""

from __future__ import annotations

import numpy as np

from openmav.backends._base import Frame
from openmav.measures._base import alike, stacked
from openmav.record import Array

SINK = 1e-4  # a row that sums to less than 1 - SINK gives the rest to a learned sink; less is rounding
UNSEEN = -1e30  # a score below it is a mask


def rows_over_tokens(frame: Frame) -> Array:
    """[layers, heads, tokens]: the attention of the last position to every token so far; 0 where a head can't look, NaN without rows.

    A sliding window's row covers the newest tokens only, and is set to the right. Whoever asks gets the same array.
    """
    return frame.once("rows_over_tokens", _rows_over_tokens)


def learned_share(frame: Frame) -> Array:
    """[layers, heads]: the share that a learned sink takes of the last position's row, 0 where the row sums to 1."""
    return frame.once("learned_share", lambda frame: _learned_share(rows_over_tokens(frame)))


def _rows_over_tokens(frame: Frame) -> Array:
    rows = frame.sites["attention.probs"]
    heads = max((row.shape[0] for row in rows if row is not None), default=0)
    tokens = max((row.shape[1] for row in rows if row is not None), default=0)
    tokens = max(tokens, frame.tokens)
    found = np.full((len(rows), heads, tokens), np.nan, dtype=np.float32)
    for layers in alike(rows):
        stack, _ = stacked([rows[i] for i in layers])
        assert stack is not None
        found[layers, : stack.shape[1]] = 0.0
        found[layers, : stack.shape[1], tokens - stack.shape[2] :] = stack.cpu().numpy()
    return found


def visible(frame: Frame) -> Array:
    """[layers, heads]: how many tokens each head can see from the last position; NaN without rows.

    Counted by the scores that no mask hides; where only rows are known, by the weights that are not exactly 0.
    """
    rows, scores = frame.sites["attention.probs"], frame.sites["attention.scores"]
    heads = max((row.shape[0] for row in rows if row is not None), default=0)
    found = np.full((len(rows), heads), np.nan, dtype=np.float32)
    for layers in alike(rows):
        score, known = stacked([scores[i] for i in layers])
        if score is not None and len(known) == len(layers):
            seen = ~(score <= UNSEEN)  # NaN is seen
        else:
            row, _ = stacked([rows[i] for i in layers])
            assert row is not None
            seen = row != 0
        found[layers, : seen.shape[1]] = seen.sum(-1).cpu().numpy()
    return found


def _learned_share(rows: Array) -> Array:
    """[layers, heads, tokens] -> [layers, heads]."""
    rest = np.asarray(1.0 - rows.sum(-1, dtype=np.float64), dtype=np.float32)
    rest[rest <= SINK] = 0.0  # NaN stays NaN
    return rest
