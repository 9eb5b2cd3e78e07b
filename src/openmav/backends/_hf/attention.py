"""Attention that can tell its rows: one function for every model that takes its attention from transformers' interface.

The output is the same, bit for bit, whether or not anyone wants the rows. One query is computed on the grouped heads, and
the row that made the output is the row that is shown; several queries (a prompt) go through scaled dot product attention,
and the row of the last one is computed beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "mav"
SCORES_AT_ONCE = 1 << 25  # scores held at a time where SDPA can't be used


@dataclass
class Rows:
    """What attention told during one forward pass: {module: (scores, row)}, each [heads, keys] in fp32; scores where they are known."""

    by_module: dict[nn.Module, tuple[Tensor | None, Tensor]] = field(default_factory=dict)
    with_scores: bool = True  # whether anyone wants them; else their memory is free for the next layer's


class _Listening(threading.local):
    rows: Rows | None = None


_listening = _Listening()


@contextmanager
def listening(rows: Rows | None) -> Iterator[None]:
    """Within this block, attention of this thread reports into `rows`."""
    before, _listening.rows = _listening.rows, rows
    try:
        yield
    finally:
        _listening.rows = before


def register() -> str:
    """Make the function known to transformers, with SDPA's masks; returns its name."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


class _Terms(NamedTuple):
    """What bends the scores besides scale and mask; all of it optional."""

    scaling: float
    softcap: float | None
    sinks: Tensor | None  # [heads], learned; they take a share of each row and give nothing
    position_bias: Tensor | None  # [1 or batch, heads, queries, keys]


def _grouped(x: Tensor, kv_heads: int) -> Tensor:
    """[1, heads, queries, d] -> [kv heads, heads per kv head * queries, d]; heads of one group lie side by side."""
    return x.reshape(kv_heads, -1, x.shape[-1])


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, terms: _Terms) -> Tensor:
    """[1, heads, queries, d] and [1, kv heads, keys, d] -> [heads, queries, keys] fp32, after scale, cap, bias and mask."""
    heads, queries = query.shape[1], query.shape[2]
    scores = torch.bmm(_grouped(query * terms.scaling, key.shape[1]), key.squeeze(0).transpose(-1, -2))
    scores = scores.view(heads, queries, -1).float()
    if terms.softcap is not None:
        scores = torch.tanh(scores / terms.softcap) * terms.softcap
    if terms.position_bias is not None:
        scores = scores + terms.position_bias[0, ..., -queries:, -scores.shape[-1] :]
    if mask is not None:
        mask = mask[0, ..., -queries:, : scores.shape[-1]]
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.float()
    return scores


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """fp32 over the keys; a learned sink takes part and is dropped, so that a row may sum to less than 1."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    sink = sinks.float().view(-1, 1, 1).expand(-1, scores.shape[1], 1)
    return torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]


def _weigh(rows: Tensor, value: Tensor) -> Tensor:
    """[heads, queries, keys] and [1, kv heads, keys, dv] -> [1, heads, queries, dv]."""
    heads, queries, keys = rows.shape
    grouped = rows.to(value.dtype).reshape(value.shape[1], -1, keys)
    return torch.bmm(grouped, value.squeeze(0)).view(1, heads, queries, -1)


def _causal(queries: int, keys: int, first: int, device: torch.device) -> Tensor:
    """True where query `first + i` of a causal model may look, [1, 1, queries, keys]; the last query sees the last key."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(first)[None, None]


def _exact(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, terms: _Terms) -> Tensor:
    """Several queries with what SDPA does not know (caps, sinks), a block of queries at a time."""
    queries, keys = query.shape[2], key.shape[2]
    block = max(1, SCORES_AT_ONCE // (query.shape[1] * keys))
    parts = []
    for start in range(0, queries, block):
        part = query[:, :, start : start + block]
        stop = start + part.shape[2]
        seen = _causal(part.shape[2], keys, keys - queries + start, query.device) if mask is None else mask[..., start:stop, :keys]
        bias = terms.position_bias
        local = _Terms(terms.scaling, terms.softcap, terms.sinks, bias if bias is None or bias.shape[2] == 1 else bias[:, :, start:stop])
        parts.append(_weigh(_softmax(_scores(part, key, seen, local), terms.sinks), value))
    return torch.cat(parts, dim=2)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and keys > queries:
        mask = _causal(queries, keys, keys - queries, query.device)
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, is_causal=mask is None)


def _one_query(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """One query without mask or anything else that bends its scores: (output [1, 1, heads, dv], scores, row).

    Both are [kv heads, heads per kv head, keys].

    The way of nearly every token, in as few calls as it takes: on a small model each costs as much as its arithmetic.
    """
    scores = torch.bmm(_grouped(query * scaling, key.shape[1]), key.squeeze(0).transpose(1, 2)).float()
    row = torch.softmax(scores, dim=-1)
    output = torch.bmm(row.to(value.dtype), value.squeeze(0))
    return output.view(1, 1, query.shape[1], -1), scores, row


def _one_by_one(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None, terms: dict[str, Any]
) -> tuple[Tensor, None]:
    """Several sequences of one length, each as if it were alone; a mask and a bias are one for all, or one for each."""
    made = []
    with listening(None):
        for at in range(query.shape[0]):
            own_mask, own_bias = (None if x is None else x[at : at + 1] if x.shape[0] > 1 else x for x in (mask, bias))
            one = slice(at, at + 1)
            made.append(attention(module, query[one], key[one], value[one], own_mask, position_bias=own_bias, **terms)[0])
    return torch.cat(made), None


def attention(
    module: nn.Module,
    query: Tensor,  # [batch, heads, queries, d]
    key: Tensor,  # [batch, kv heads, keys, d]
    value: Tensor,  # [batch, kv heads, keys, dv]
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: returns ([batch, queries, heads, dv], None).

    Causal self attention; dropout is not applied, mav never trains through it. Of several sequences no rows are told.
    """
    if query.shape[0] != 1:
        return _one_by_one(
            module, query, key, value, attention_mask, position_bias, {"scaling": scaling, "softcap": softcap, "s_aux": s_aux}
        )
    sinks = s_aux if s_aux is not None else module._parameters.get("sinks")
    terms = _Terms(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, sinks, position_bias)
    plain = softcap is None and sinks is None and position_bias is None
    rows = _listening.rows
    if query.shape[2] == 1 and plain and attention_mask is None:
        output, scores, row = _one_query(query, key, value, terms.scaling)
        if rows is not None:
            told = scores.flatten(0, 1) if rows.with_scores else None
            rows.by_module[module] = told, row.flatten(0, 1)
        return output, None
    if query.shape[2] == 1:
        scores = _scores(query, key, attention_mask, terms)
        row = _softmax(scores, terms.sinks)
        output = _weigh(row, value)
    else:
        output = _sdpa(query, key, value, attention_mask, terms.scaling) if plain else _exact(query, key, value, attention_mask, terms)
        if rows is not None:
            last_mask = None if attention_mask is None else attention_mask[..., -1:, :]
            scores = _scores(query[:, :, -1:], key, last_mask, terms)
            row = _softmax(scores, terms.sinks)
    if rows is not None:
        rows.by_module[module] = (scores.squeeze(1) if rows.with_scores else None, row.squeeze(1))
    return output.transpose(1, 2).contiguous(), None
