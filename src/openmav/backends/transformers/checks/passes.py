"""A few tokens through a model with one attention or another: what each pass gave, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.hooks import last_position, row_of
from openmav.backends.transformers.checks.going_back import same_again
from openmav.backends.transformers.checks.reference import Rows, whole_pass_and_rows
from openmav.backends.transformers.decoding.decoder import Decoder
from openmav.backends.transformers.discovery.anatomy import Anatomy
from openmav.backends.transformers.discovery.trial import token_ids
from openmav.backends.transformers.discovery.values import output_tensor
from openmav.backends.transformers.head.exact_head import difference, tolerance
from openmav.backends.transformers.loading import loader
from openmav.backends.transformers.loading.quantised import without_gradients
from openmav.system.memory import out_of_memory

ROWS_TOLERANCE = 1e-5


@dataclass
class Pass:
    """A prompt and one more token through a model; the lists hold an entry for the prompt's last token and one for the token after it."""

    logits: list[Tensor] = field(default_factory=list)  # [vocab] fp32
    rows: list[Rows] = field(default_factory=list)  # [heads, keys] fp32 of each attention module that recorded one
    residuals: list[Tensor] = field(default_factory=list)  # [width] after the last layer
    output: Any = None  # of the last layer, unchanged
    goes_back: bool = False  # the token's logits were the same after it was undone and fed again; False where that was not tried
    whole: bool = False  # decoded with a cache, and the same as one pass without one


def attempt(once: Callable[[], Pass]) -> Pass | None:
    """None where the model can't run with this attention."""
    try:
        return once()
    except Exception as error:  # whatever a model raises, it can't run with this attention
        if out_of_memory(error):
            raise
        return None


def run(
    model: PreTrainedModel,
    anatomy: Anatomy,
    implementation: str | None = None,
    *,
    arguments: Mapping[str, bool] | None = None,
    back: bool = False,
) -> Pass:
    """A prompt of a few tokens and one after it, with this attention (None: the current one). `back`: the last is undone and repeated."""
    if implementation is not None:
        loader.use_attention(model, implementation)
    ids = sample_ids(model)
    recorded, result = attention.Rows(), Pass()
    outputs: list[Any] = []
    extra = dict(arguments or {})
    handles = [anatomy.layers[anatomy.last].register_forward_hook(lambda _m, _a, output: outputs.append(output))]
    if implementation != attention.NAME:  # which records its rows itself
        owners = dict.fromkeys(m for m in anatomy.attention_modules if m is not None)
        handles += [m.register_forward_hook(partial(_keep_row, recorded, m)) for m in owners]
    decoder = Decoder(model)
    feeds: list[Callable[[], Any]] = [
        lambda: decoder.prefill(ids[:-1], extra, lambda _n: None),
        lambda: decoder.decode_one_token(ids[-1], extra),
    ]
    try:
        with without_gradients(model), attention.recording_rows(recorded):
            for feed in feeds:
                recorded.by_module.clear()
                output = feed()
                result.logits.append(output.logits[0, -1].float().cpu())
                result.rows.append({module: row for module, (_, row) in recorded.by_module.items()})
                result.residuals.append(last_position(output_tensor(outputs[-1])))
    finally:
        for handle in handles:
            handle.remove()
    result.output = outputs[-1]
    if back:
        with without_gradients(model):
            result.goes_back = same_again(decoder, output.logits.clone(), extra)
    return result


def eager_whole(model: PreTrainedModel, anatomy: Anatomy) -> Pass:
    """The logits and rows of the same tokens with eager attention, from one pass without a cache."""
    loader.use_attention(model, "eager")
    logits, rows = whole_pass_and_rows(model, sample_ids(model), [m for m in anatomy.attention_modules if m is not None])
    return Pass(logits=list(logits), rows=list(rows))


def sample_ids(model: PreTrainedModel) -> list[int]:
    """A few ordinary tokens, always the same for a model."""
    config = model.config.get_text_config(decoder=True)
    special = {v for c in (model.config, config) for k, v in vars(c).items() if k.endswith("_token_id") and isinstance(v, int)}
    return list(token_ids(int(config.vocab_size), frozenset(special))[0].tolist())


def _keep_row(rows: attention.Rows, owner: nn.Module, _module: nn.Module, _args: object, output: object) -> None:
    row = row_of(output)
    if row is not None:
        rows.by_module[owner] = (None, row)


# ---- comparing -----------------------------------------------------------------------------------------------------------


def rows_tolerance(dtype: torch.dtype) -> float:
    """The allowed difference of attention weights computed in two orders; half precision adds up over the layers below."""
    return max(ROWS_TOLERANCE, 16 * torch.finfo(dtype).eps)


def logits_tolerance(dtype: torch.dtype) -> float:
    """The allowed difference of logits with attention computed in two orders, relative to the largest."""
    return max(tolerance(torch.float32), 8 * torch.finfo(dtype).eps)


def logits_error(a: Pass, b: Pass) -> float:
    return max(difference(x, y) for x, y in zip(a.logits, b.logits, strict=True))


def rows_error(a: Pass, b: Pass) -> float:
    """The largest difference of two weights, rows aligned at their newest key; a module without a row in `b` is left out."""
    worst = 0.0
    for ours, theirs in zip(a.rows, b.rows, strict=True):
        for module, row in ours.items():
            if module in theirs:
                worst = max(worst, row_difference(row, theirs[module]))
    return worst


def row_difference(a: Tensor, b: Tensor) -> float:
    """[heads, keys] each; keys that only one of them has count with their full weight."""
    keys = max(a.shape[-1], b.shape[-1])
    wide = [nn.functional.pad(row.float().cpu(), (keys - row.shape[-1], 0)) for row in (a, b)]
    return float((wide[0] - wide[1]).abs().max())
