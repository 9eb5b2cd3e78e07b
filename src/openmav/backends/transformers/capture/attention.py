"""Attention that can record its rows: one function for every model that uses transformers' attention interface.

The output is the same, bit for bit, whether or not rows are recorded. One query is computed on the grouped heads, and the row
that produced the output is the row that is shown; several queries (a prompt) use scaled dot product attention, and the row of
the last one is computed separately.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "mav"
SCORES_AT_ONCE = 1 << 25  # scores in memory at a time where SDPA can't be used
HARMLESS = frozenset(  # arguments that change no weight: dropout is off, windows are part of the mask, the rest is for the caller
    {"dropout", "sliding_window", "position_ids", "cache_position", "is_causal", "use_cache", "past_key_values", "return_dict"}
    | {"output_attentions", "output_hidden_states", "output_router_logits", "num_items_in_batch", "logits_to_keep"}
)


class UnknownArgumentError(TypeError):
    """A model passes its attention an argument that mav's attention does not support."""


@dataclass
class Rows:
    """The attention rows of one forward pass: {module: (scores, row)}, each [heads, keys] in fp32; scores where they are known."""

    by_module: dict[nn.Module, tuple[Tensor | None, Tensor]] = field(default_factory=dict)
    with_scores: bool = True  # whether scores are wanted; else their memory is free for the next layer


@dataclass(frozen=True)
class _Texts:
    """Several texts in one pass: the first key of each that is its own, and where its rows go; None: none are recorded."""

    starts: Sequence[int]
    rows: Sequence[Rows] | None


class _Recorder(threading.local):
    rows: Rows | None = None
    texts: _Texts | None = None


_recorder = _Recorder()


@contextmanager
def recording_rows(rows: Rows | None) -> Iterator[None]:
    """Context manager: the attention of this thread records into `rows`; None: it does not record."""
    before, _recorder.rows = _recorder.rows, rows
    try:
        yield
    finally:
        _recorder.rows = before


@contextmanager
def batched(starts: Sequence[int], rows: Sequence[Rows] | None) -> Iterator[None]:
    """Context manager: the batch of a pass is texts of unlike lengths, right-aligned; each sees its own keys only, from `starts` on."""
    before, _recorder.texts = _recorder.texts, _Texts(starts, rows)
    try:
        yield
    finally:
        _recorder.texts = before


_registered: Counter[str] = Counter()  # blocks that use each name now, in all threads
_registering = threading.Lock()


@contextmanager
def registered(name: str = NAME, function: Callable[..., Any] | None = None) -> Iterator[None]:
    """Context manager: transformers knows the function (None: `attention`) by this name, with SDPA's masks; after it, no longer."""
    with _registering:
        _registered[name] += 1
        if _registered[name] == 1:
            AttentionInterface.register(name, function or attention)
            AttentionMaskInterface.register(name, sdpa_mask)
    try:
        yield
    finally:
        with _registering:
            _registered[name] -= 1
            if not _registered[name]:
                del _registered[name]
                AttentionInterface._global_mapping.pop(name, None)  # there is no public way back
                AttentionMaskInterface._global_mapping.pop(name, None)


class _Terms(NamedTuple):
    """The scale, and optional terms that change the scores besides the mask."""

    scaling: float
    softcap: float | None
    sinks: Tensor | None  # [heads], learned; they get a share of each row and add nothing to the output
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
    """fp32 over the keys; a learned sink is included and then dropped, so that a row may sum to less than 1."""
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
    """Several queries with terms that SDPA does not support (caps, sinks), a block of queries at a time."""
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
    """One query without a mask or other terms that change its scores: (output [1, 1, heads, dv], scores, row).

    Both are [kv heads, heads per kv head, keys].

    Used for nearly every token, in as few calls as possible: on a small model a call costs as much as its arithmetic.
    """
    scores = torch.bmm(_grouped(query * scaling, key.shape[1]), key.squeeze(0).transpose(1, 2)).float()
    row = torch.softmax(scores, dim=-1)
    output = torch.bmm(row.to(value.dtype), value.squeeze(0))
    return output.view(1, 1, query.shape[1], -1), scores, row


def _one_by_one(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None, terms: dict[str, Any]
) -> tuple[Tensor, None]:
    """Several sequences, each as if it were alone; a mask and a bias are one for all, or one for each."""
    outputs = []
    texts, rows = _recorder.texts, _recorder.rows
    _recorder.texts = None
    try:
        for at in range(query.shape[0]):
            own_mask, own_bias = (None if x is None else x[at : at + 1] if x.shape[0] > 1 else x for x in (mask, bias))
            one, start = slice(at, at + 1), texts.starts[at] if texts else 0
            own_mask = own_mask[..., start:] if own_mask is not None and start else own_mask
            _recorder.rows = texts.rows[at] if texts and texts.rows else None
            keys, values = key[one, :, start:], value[one, :, start:]
            outputs.append(attention(module, query[one], keys, values, own_mask, position_bias=own_bias, **terms)[0])
    finally:
        _recorder.texts, _recorder.rows = texts, rows
    return torch.cat(outputs), None


def _refuse_unknown(arguments: Mapping[str, object], mask: Tensor | None) -> None:
    for name in arguments.keys() - HARMLESS:
        if arguments[name] is not None:
            raise UnknownArgumentError(f"its attention is given '{name}', which mav's does not support")
    if arguments.get("is_causal") is False and mask is None:
        raise UnknownArgumentError("its attention looks at later tokens")


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
    **more: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: returns ([batch, queries, heads, dv], None).

    Causal self attention; dropout is not applied, since mav never trains through it. With several sequences rows are
    recorded within `batched` only.
    Raises UnknownArgumentError for an argument that may change the weights in a way that is not computed here.
    """
    if more:
        _refuse_unknown(more, attention_mask)
    if query.shape[0] != 1 or _recorder.texts is not None:
        return _one_by_one(
            module, query, key, value, attention_mask, position_bias, {"scaling": scaling, "softcap": softcap, "s_aux": s_aux}
        )
    sinks = s_aux if s_aux is not None else module._parameters.get("sinks")
    terms = _Terms(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, sinks, position_bias)
    plain = softcap is None and sinks is None and position_bias is None
    rows = _recorder.rows
    if query.shape[2] == 1 and plain and attention_mask is None:
        output, scores, row = _one_query(query, key, value, terms.scaling)
        if rows is not None:
            kept_scores = scores.flatten(0, 1) if rows.with_scores else None
            rows.by_module[module] = kept_scores, row.flatten(0, 1)
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
