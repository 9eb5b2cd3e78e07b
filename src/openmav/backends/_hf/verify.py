"""Checks at load, on a few tokens: mav's attention against eager's, the lens of the last layer against the logits.

A model that does not take mav's attention, or computes something else with it, runs with its own, whose modules return their
rows: always where it is eager behind transformers' interface, and with `output_attentions` where there is no interface. What
can't be shown truthfully is named in `missing`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends._base import HEAD_SITES
from openmav.backends._hf import attention, linear_head, loading
from openmav.backends._hf._trial import token_ids
from openmav.backends._hf.anatomy import Anatomy
from openmav.backends._hf.decoding import Decoder
from openmav.backends._hf.head import ExactHead, difference, tolerance
from openmav.backends._hf.hooks import first_tensor, last_position, row_of
from openmav.backends._hf.inside import Inside, Observer
from openmav.backends._hf.neurons import NO_WAY, Neurons
from openmav.backends._hf.quantised import without_gradients

ROWS_TOLERANCE = 1e-5
LINEAR_SITES = ("head.direction", "head.neurons")
NOT_COMPARED = "this model does not run with eager attention, so mav's was not compared with it"
Rows = Mapping[nn.Module, Tensor]
OWN = "attention is the model's own: its rows are what its modules return"


@dataclass
class Pass:
    """A prompt and one token more through a model; the lists hold an entry for the prompt's last token and one for the token after it."""

    logits: list[Tensor] = field(default_factory=list)  # [vocab] fp32
    rows: list[Rows] = field(default_factory=list)  # [heads, keys] fp32 of each attention module that told one
    residuals: list[Tensor] = field(default_factory=list)  # [width] after the last layer
    output: Any = None  # of the last layer, as it is


@dataclass(frozen=True)
class Checked:
    """How to run a model, what is inside its layers, and what the checks measured; errors are relative, of rows absolute."""

    from_outputs: bool  # attention rows come from what the model's own attention returns
    arguments: Mapping[str, bool]  # for each forward pass, whether or not anyone wants rows, so that capture changes nothing
    inside: Inside
    head: ExactHead | None
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)  # NaN: not measured


def check(model: PreTrainedModel, anatomy: Anatomy) -> Checked:
    """Run the checks; the model is left with the attention that is right for it.

    Raises whatever the model raises with its own attention.
    """
    observer = Observer(anatomy)
    ours, errors = _with_ours(model, anatomy, observer)
    from_outputs = ours is None
    arguments = {} if _takes_interface(model) else {"output_attentions": True}
    if ours is None:
        ours = _run(model, anatomy, observer=observer, arguments=arguments)
    inside = observer.found()
    head, head_errors, missing = _check_head(model, anatomy, ours)
    for site, layers in inside.missing.items():
        missing.setdefault(site, {}).update(layers)
    if head is not None and head.linear is not None:
        head.neurons = Neurons(inside, head.linear, head.kept)
        missing |= {"head.neurons": dict.fromkeys(head.neurons.unreadable, NO_WAY)} if head.neurons.unreadable else {}
    has_rows = any(m is not None for m in anatomy.attention_modules)
    if from_outputs and has_rows:
        _missing_rows(anatomy, ours, missing)
    return Checked(
        from_outputs=from_outputs,
        arguments=arguments,
        inside=inside,
        head=head,
        missing=missing,
        notes=(OWN if from_outputs else NOT_COMPARED,) if has_rows and (from_outputs or not errors) else (),
        errors={**errors, **head_errors},
    )


def _with_ours(model: PreTrainedModel, anatomy: Anatomy, observer: Observer) -> tuple[Pass | None, dict[str, float]]:
    """The pass with mav's attention, and how far it is from eager's; None, and eager set where it can be, if it is not to be used."""
    if not _takes_interface(model):
        return None, {}
    before = model.config._attn_implementation
    reference = _attempt(lambda: _run(model, anatomy, "eager"))
    ours = _attempt(lambda: _run(model, anatomy, attention.register(), observer=observer))
    errors: dict[str, float] = {}
    if ours is not None and reference is not None:
        errors = {"attention logits": _logits_error(ours, reference), "attention rows": rows_error(ours, reference)}
    good = ours is not None and _told_all(anatomy, ours)
    good = good and errors.get("attention logits", 0.0) <= logits_tolerance(model.dtype)
    good = good and errors.get("attention rows", 0.0) <= rows_tolerance(model.dtype)
    if not good:
        loading.use_attention(model, "eager" if reference is not None else before)
    return (ours if good else None), errors


def _takes_interface(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be set: it is behind transformers' interface."""
    return bool(type(model)._can_set_attn_implementation())


# ---- running -------------------------------------------------------------------------------------------------------------


def _attempt(run: Callable[[], Pass]) -> Pass | None:
    """None for an attention that the model can't run with."""
    try:
        return run()
    except Exception:  # whatever a model raises, the answer is the same: not with this attention
        return None


def _run(
    model: PreTrainedModel,
    anatomy: Anatomy,
    implementation: str | None = None,
    *,
    observer: Observer | None = None,
    arguments: Mapping[str, bool] | None = None,
) -> Pass:
    """A few tokens as a prompt, and one after them, with this attention (None: the model's present one)."""
    if implementation is not None:
        loading.use_attention(model, implementation)
    ids = sample_ids(model)
    told, found = attention.Rows(), Pass()
    outputs: list[Any] = []
    extra = dict(arguments or {})
    handles = [anatomy.layers[-1].register_forward_hook(lambda _m, _a, output: outputs.append(output))]
    if implementation != attention.NAME:  # which tells its rows itself
        owners = dict.fromkeys(m for m in anatomy.attention_modules if m is not None)
        handles += [m.register_forward_hook(partial(_tell, told, m)) for m in owners]
    decoder = Decoder(model)
    feeds: list[Callable[[], Any]] = [
        lambda: decoder.prefill(ids[:-1], extra, lambda _n: None),
        lambda: decoder.decode_one_token(ids[-1], extra),
    ]
    try:
        with without_gradients(model), attention.listening(told):
            for feed in feeds:
                told.by_module.clear()
                with observer.watching() if observer is not None else nullcontext():
                    made = feed()
                found.logits.append(made.logits[0, -1].float().cpu())
                found.rows.append({module: row for module, (_, row) in told.by_module.items()})
                found.residuals.append(last_position(first_tensor(outputs[-1])))
    finally:
        for handle in handles:
            handle.remove()
    found.output = outputs[-1]
    return found


def sample_ids(model: PreTrainedModel) -> list[int]:
    """A few ordinary tokens, always the same for a model."""
    config = model.config.get_text_config(decoder=True)
    special = {v for c in (model.config, config) for k, v in vars(c).items() if k.endswith("_token_id") and isinstance(v, int)}
    found: list[int] = token_ids(int(config.vocab_size), frozenset(special))[0].tolist()
    return found


def _tell(told: attention.Rows, owner: nn.Module, _module: nn.Module, _args: object, output: object) -> None:
    row = row_of(output)
    if row is not None:
        told.by_module[owner] = (None, row)


# ---- comparing -----------------------------------------------------------------------------------------------------------


def _told_all(anatomy: Anatomy, ours: Pass) -> bool:
    """Whether the model really ran with mav's attention: every module that owns rows told one, both times."""
    owners = {m for m in anatomy.attention_modules if m is not None}
    return all(owners <= rows.keys() for rows in ours.rows)


def rows_tolerance(dtype: torch.dtype) -> float:
    """What attention weights computed in two orders may differ; half precision adds up over the layers below."""
    return max(ROWS_TOLERANCE, 16 * torch.finfo(dtype).eps)


def logits_tolerance(dtype: torch.dtype) -> float:
    """What logits of two orders of computing attention may differ, relative to the largest."""
    return max(tolerance(torch.float32), 8 * torch.finfo(dtype).eps)


def _logits_error(a: Pass, b: Pass) -> float:
    return max(difference(x, y) for x, y in zip(a.logits, b.logits, strict=True))


def rows_error(a: Pass, b: Pass) -> float:
    """The largest difference of two weights, rows aligned at their newest key; where b tells no row there is none."""
    worst = 0.0
    for ours, theirs in zip(a.rows, b.rows, strict=True):
        for module, row in ours.items():
            if module in theirs:
                worst = max(worst, row_difference(row, theirs[module]))
    return worst


def row_difference(a: Tensor, b: Tensor) -> float:
    """[heads, keys] each; keys that only one of them has count with their whole weight."""
    keys = max(a.shape[-1], b.shape[-1])
    wide = [nn.functional.pad(row.float().cpu(), (keys - row.shape[-1], 0)) for row in (a, b)]
    return float((wide[0] - wide[1]).abs().max())


def _missing_rows(anatomy: Anatomy, ours: Pass, missing: dict[str, dict[int, str]]) -> None:
    for layer, module in enumerate(anatomy.attention_modules):
        if module is None:
            continue
        row = ours.rows[-1].get(module)
        if row is None:
            missing.setdefault("attention.probs", {})[layer] = "this model's attention does not return its rows"
        elif not bool(((row >= 0).all() & (row.sum(-1) < 1 + 1e-2).all()) | row.isnan().any()):
            missing.setdefault("attention.probs", {})[layer] = "what this model's attention returns are no probabilities"


def _check_head(
    model: PreTrainedModel, anatomy: Anatomy, ours: Pass
) -> tuple[ExactHead | None, dict[str, float], dict[str, dict[int, str]]]:
    """The head if its lens of the last layer is the model's logits; what was measured; what is missing."""
    everywhere = range(len(anatomy.layers))
    expected = torch.stack(ours.logits)
    try:
        head = ExactHead(model, anatomy.layers, ours.output, anatomy.carry)
        error = difference(head.logits(torch.stack(ours.residuals)).cpu(), expected)
    except Exception as problem:
        why = f"this model can't be run from its last layer on ({type(problem).__name__})"
        return None, {}, {site: dict.fromkeys(everywhere, why) for site in HEAD_SITES}
    if not error <= tolerance(model.dtype):
        why = f"the lens of the last layer is not the model's logits (off by {error:.1g} of the largest)"
        return None, {"lens": error}, {site: dict.fromkeys(everywhere, why) for site in HEAD_SITES}
    head.shorten(anatomy.final_norm, model.get_output_embeddings(), torch.stack([*ours.residuals, *ours.residuals]).mul(1.5))
    missing: dict[str, dict[int, str]] = {}
    try:
        head.linear = _linear(model, anatomy, head, ours.residuals)
    except linear_head.NotLinearError as problem:
        missing |= {site: dict.fromkeys(everywhere, str(problem)) for site in LINEAR_SITES}
    else:
        missing |= {site: layers for site in LINEAR_SITES if (layers := _not_followed(anatomy))}
    return head, {"lens": error}, missing


def _not_followed(anatomy: Anatomy) -> dict[int, str]:
    """Layers whose parts can't be followed to the logits: up to the last one whose own parts are not known."""
    unknown = [i for i, (a, m) in enumerate(zip(anatomy.attention, anatomy.mlp, strict=True)) if a is None and m is None]
    if not unknown:
        return {}
    why = f"what layer {unknown[-1]} adds is not known, so nothing up to there can be followed to the logits"
    return dict.fromkeys(range(unknown[-1] + 1), why)


def _linear(model: PreTrainedModel, anatomy: Anatomy, head: ExactHead, residuals: list[Tensor]) -> linear_head.LinearHead:
    """Read off on the real states and one made up of both."""
    states = torch.stack([*residuals, residuals[0] - 0.5 * residuals[1].flip(0)])
    rows = model.get_output_embeddings()
    return linear_head.find(model.config, rows, anatomy.final_norm, states, head.logits(states), tolerance(model.dtype))
