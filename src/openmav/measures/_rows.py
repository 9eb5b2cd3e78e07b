"""Attention rows as numbers, shared by the measures that read them."""

from __future__ import annotations

import numpy as np

from openmav.backends.base import Frame
from openmav.measures.base import alike, array_of, stacked
from openmav.record import Array

SINK = 1e-4  # the rest of a row that sums to less than 1 - SINK is a learned sink's; a smaller rest is rounding
UNSEEN = -1e30  # a lower score is masked


def rows_over_tokens(frame: Frame) -> Array:
    """[layers, heads, tokens]: the attention of the last position to every token so far; 0 where a head can't attend, NaN without rows.

    A sliding window's row covers the newest tokens only, and is aligned to the right; keys that stand for no single token are left
    out. Computed once per frame.
    """
    return frame.once("rows_over_tokens", _rows_over_tokens)


def learned_share(frame: Frame) -> Array:
    """[layers, heads]: the share of the last position's row on a learned sink, 0 where the row sums to 1."""
    return frame.once("learned_share", lambda frame: _learned_share(rows_over_tokens(frame), _on_others(frame)))


def _rows_over_tokens(frame: Frame) -> Array:
    others = frame.other_keys or [0] * len(frame.rows("attention.probs"))
    rows = [None if row is None else row[:, count:] for row, count in zip(frame.rows("attention.probs"), others, strict=True)]
    heads = max((row.shape[0] for row in rows if row is not None), default=frame.heads)
    tokens = max((row.shape[1] for row in rows if row is not None), default=0)
    tokens = max(tokens, frame.tokens)
    result = np.full((len(rows), heads, tokens), np.nan, dtype=np.float32)
    for layers in alike(rows):
        stack, _ = stacked([rows[i] for i in layers])
        assert stack is not None
        result[layers, : stack.shape[1]] = 0.0
        result[layers, : stack.shape[1], tokens - stack.shape[2] :] = array_of(stack)
    return result


def visible(frame: Frame) -> Array:
    """[layers, heads]: how many keys each head can see from the last position, nearly always tokens; NaN without rows.

    Counts the scores that are not masked; where only rows are known, the weights that are not exactly 0.
    """
    rows, scores = frame.rows("attention.probs"), frame.rows("attention.scores")
    heads = max((row.shape[0] for row in rows if row is not None), default=frame.heads)
    result = np.full((len(rows), heads), np.nan, dtype=np.float32)
    for layers in alike(rows):
        score, known = stacked([scores[i] for i in layers])
        if score is not None and len(known) == len(layers):
            seen = ~(score <= UNSEEN)  # NaN is seen
        else:
            row, _ = stacked([rows[i] for i in layers])
            assert row is not None
            seen = row != 0
        result[layers, : seen.shape[1]] = array_of(seen.sum(-1))
    return result


def _on_others(frame: Frame) -> Array:
    """[layers, heads]: the attention to keys that stand for no single token."""
    rows = frame.rows("attention.probs")
    heads = max((len(row) for row in rows if row is not None), default=frame.heads)
    result = np.zeros((len(rows), heads), dtype=np.float32)
    for layer, (row, count) in enumerate(zip(rows, frame.other_keys)):
        if row is not None and count:
            result[layer, : len(row)] = array_of(row[:, :count]).sum(-1, dtype=np.float64)
    return result


def _learned_share(rows: Array, on_others: Array) -> Array:
    """[layers, heads, tokens] and [layers, heads] -> [layers, heads]."""
    rest = np.asarray(1.0 - rows.sum(-1, dtype=np.float64) - on_others, dtype=np.float32)
    rest[rest <= SINK] = 0.0  # NaN stays NaN
    return rest
