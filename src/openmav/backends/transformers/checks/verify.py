"""Checks at load, on a few tokens: mav's attention against eager's, the lens of the last layer against the logits, decoding with a
cache against one pass over all, and the same past every length at which the configuration changes something.

A model that can't use mav's attention, or computes something else with it, runs with its own, whose modules return their rows:
always where it is eager behind transformers' interface, and with `output_attentions` where there is no interface. Sites that
can't be shown correctly are listed in `missing`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from openmav.backends.sites import ROW_SITES
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.module_state import Scan
from openmav.backends.transformers.checks import agreement
from openmav.backends.transformers.checks.agreement import Agreement, MoreKeys, RunMode
from openmav.backends.transformers.checks.head import check_head
from openmav.backends.transformers.checks.passes import (
    Pass,
    attempt,
    eager_whole,
    logits_error,
    logits_tolerance,
    rows_error,
    rows_tolerance,
    run,
    sample_ids,
)
from openmav.backends.transformers.discovery.anatomy import Anatomy
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.head.exact_head import ExactHead
from openmav.backends.transformers.head.neurons import NO_WAY, Neurons
from openmav.backends.transformers.loading import loader

NOT_COMPARED = "this model does not run with eager attention, so mav's was not compared with it"
OWN = "attention is the model's own: its rows are what its modules return"
OWN_WITHOUT_ROWS = "attention is the model's own"


@dataclass(frozen=True)
class Checked:
    """How to run a model, its MLP internals, and what the checks measured; errors are relative, those of rows absolute."""

    from_outputs: bool  # attention rows come from what the model's own attention returns
    arguments: Mapping[str, bool]  # for each forward pass, whether or not rows are wanted, so that capture changes nothing
    mlp_internals: MlpInternals
    head: ExactHead | None
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)  # NaN: not measured
    past: Agreement | None = None  # past the lengths that the configuration names; None: it names none
    in_one_piece: bool = False  # how a prompt has to be read
    goes_back: bool = False  # see Pass
    heads: tuple[int, ...] = ()  # attention rows of each layer; 0 without
    more_keys: frozenset[nn.Module] = frozenset()  # modules whose attention has other keys after those of the tokens

    @property
    def last_alone(self) -> bool:
        """Whether a prompt's last token is read by itself, so that no [queries, keys] matrix of attention is kept."""
        return self.from_outputs and not self.in_one_piece


def check(model: PreTrainedModel, anatomy: Anatomy, scan: Scan | None = None) -> Checked:
    """Run the checks; at the end the model has the attention that it is to run with. `scan` records the state of its modules.

    Raises any error of the model with its own attention.
    """
    scan = scan or Scan(model)
    ours, errors, past = _chosen(model, anatomy, scan)
    from_outputs = ours is None
    arguments = {} if _takes_interface(model) else {"output_attentions": True}
    notes: list[str] = []
    whole = False
    why_no_rows = None
    if ours is None:
        ours = run(model, anatomy, arguments=arguments)
        if arguments and (why_no_rows := _changed_by_output_attentions(model, anatomy, ours)) is not None:
            arguments = {}
            ours = run(model, anatomy)
        scan.look()
        mode = RunMode(None, arguments, last_alone=True)
        past = _past(model, anatomy, mode, scan)
        whole = agreement.needs_one_piece(model, sample_ids(model), mode, logits_tolerance(model.dtype))
    if not ours.whole:
        notes += agreement.with_whole_pass(model, sample_ids(model), torch.stack(ours.logits), logits_tolerance(model.dtype))
    head, head_errors, missing = check_head(model, anatomy, ours)
    for site, layers in anatomy.mlp_internals.missing.items():
        missing.setdefault(site, {}).update(layers)
    if head is not None and head.linear is not None:
        head.neurons = Neurons(anatomy.mlp_internals, head.linear, head.kept)
        missing |= {"head.neurons": dict.fromkeys(head.neurons.unreadable, NO_WAY)} if head.neurons.unreadable else {}
    has_rows = any(m is not None for m in anatomy.attention_modules)
    if from_outputs and has_rows:
        _missing_rows(anatomy, ours, missing, why_no_rows)
    more_keys = {} if past is None else {module: more for module, more in past.keys.items() if more.proved and from_outputs}
    _missing_keys(anatomy, ours, {} if past is None else past.keys, frozenset(more_keys), len(sample_ids(model)), missing)
    if past is not None:
        notes += agreement.notes(past, logits_tolerance(model.dtype), known=bool(notes))
    if has_rows and (from_outputs or not errors):
        notes.append(NOT_COMPARED if not from_outputs else OWN if why_no_rows is None else OWN_WITHOUT_ROWS)
    return Checked(
        more_keys=frozenset(more_keys),
        from_outputs=from_outputs,
        arguments=arguments,
        mlp_internals=anatomy.mlp_internals,
        head=head,
        missing=missing,
        notes=tuple(notes),
        errors={**errors, **head_errors},
        past=past,
        in_one_piece=whole or (past is not None and past.in_one_piece),
        goes_back=ours.goes_back,
        heads=tuple(0 if (row := ours.rows[-1].get(module)) is None else len(row) for module in anatomy.attention_modules),  # type: ignore[arg-type]
    )


# ---- which attention -----------------------------------------------------------------------------------------------------


def _chosen(model: PreTrainedModel, anatomy: Anatomy, scan: Scan) -> tuple[Pass | None, dict[str, float], Agreement | None]:
    """As `_with_ours`; mav's attention is not used if it is wrong past the lengths that the configuration names."""
    ours, errors = _with_ours(model, anatomy)
    scan.look()
    if ours is None or not errors:
        return ours, errors, None
    past = _past(model, anatomy, RunMode(attention.NAME), scan)
    if past is not None and not past.ours <= logits_tolerance(model.dtype):
        loader.use_attention(model, "eager")
        return None, {**errors, "attention logits": past.ours}, None
    return ours, errors, past


def _past(model: PreTrainedModel, anatomy: Anatomy, way: RunMode, scan: Scan) -> Agreement | None:
    config, owners = model.config.get_text_config(decoder=True), dict.fromkeys(m for m in anatomy.attention_modules if m is not None)
    use = partial(loader.use_attention, model)
    return agreement.compare(model, config, sample_ids(model), way, use, list(owners), logits_tolerance(model.dtype), scan)


def _changed_by_output_attentions(model: PreTrainedModel, anatomy: Anatomy, requested: Pass) -> str | None:
    """Why a model's attention rows can't be requested: its logits change with `output_attentions`. None where they don't."""
    error = logits_error(requested, run(model, anatomy))
    if error <= logits_tolerance(model.dtype):
        return None
    return f"asked for its attention rows this model computes other logits, off by {error:.1g} of the largest"


def _with_ours(model: PreTrainedModel, anatomy: Anatomy) -> tuple[Pass | None, dict[str, float]]:
    """The pass with mav's attention, and how far it is from eager's; None, and eager set where it can be, if it is not to be used."""
    if not _takes_interface(model):
        return None, {}
    before = model.config._attn_implementation
    whole = attempt(lambda: eager_whole(model, anatomy))
    ours = attempt(lambda: run(model, anatomy, attention.NAME, back=True))
    recorded = ours is not None and _recorded_all(anatomy, ours)
    if ours is not None and recorded and whole is not None and all(bool(x.isfinite().all()) for x in (*ours.logits, *whole.logits)):
        errors = _errors(ours, whole)
        if _good(errors, model.dtype):  # one pass proves that mav's attention and the cache are both right
            ours.whole = True
            return ours, errors
    reference = attempt(lambda: run(model, anatomy, "eager"))  # shows which of the two is wrong
    errors = {} if ours is not None else {"attention logits": math.nan, "attention rows": math.nan}
    if ours is not None and reference is not None:
        errors = _errors(ours, reference)
    if ours is not None and recorded and _good(errors, model.dtype):
        loader.use_attention(model, attention.NAME)
        return ours, errors
    loader.use_attention(model, "eager" if reference is not None else before)
    return None, errors


def _errors(ours: Pass, reference: Pass) -> dict[str, float]:
    return {"attention logits": logits_error(ours, reference), "attention rows": rows_error(ours, reference)}


def _good(errors: Mapping[str, float], dtype: torch.dtype) -> bool:
    """Whether all errors are within the limits; one that was not measured counts as within."""
    good = errors.get("attention logits", 0.0) <= logits_tolerance(dtype)
    return good and errors.get("attention rows", 0.0) <= rows_tolerance(dtype)


def _takes_interface(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be set: it is behind transformers' interface."""
    return bool(type(model)._can_set_attn_implementation())


def _recorded_all(anatomy: Anatomy, ours: Pass) -> bool:
    """Whether the model really ran with mav's attention: every module that owns rows recorded one, both times."""
    owners = {m for m in anatomy.attention_modules if m is not None}
    return all(owners <= rows.keys() for rows in ours.rows)


# ---- which attention rows are missing ------------------------------------------------------------------------------------


def _missing_keys(
    anatomy: Anatomy,
    ours: Pass,
    past: Mapping[nn.Module, MoreKeys],
    proved: Set[nn.Module],
    tokens: int,
    missing: dict[str, dict[int, str]],
) -> None:
    """Rows of layers whose keys are not the tokens alone, where it is not proved which are; `tokens` were read in our pass."""
    for layer, module in enumerate(anatomy.attention_modules):
        if module is None or module in proved:
            continue
        more, row = past.get(module), ours.rows[-1].get(module)
        if more is None and row is not None and row.shape[-1] > tokens:
            more = MoreKeys(row.shape[-1], tokens)
        if more is not None:
            why = f"it looks at {more.keys} keys for {more.tokens} tokens: which weight is which token's could not be proved"
            for site in ROW_SITES:
                missing.setdefault(site, {})[layer] = why


def _missing_rows(anatomy: Anatomy, ours: Pass, missing: dict[str, dict[int, str]], why: str | None) -> None:
    for layer, module in enumerate(anatomy.attention_modules):
        if module is None:
            continue
        row = ours.rows[-1].get(module)
        if why is not None:
            missing.setdefault("attention.probs", {})[layer] = why
        elif row is None:
            missing.setdefault("attention.probs", {})[layer] = "this model's attention does not return its rows"
        elif not bool(((row >= 0).all() & (row.sum(-1) < 1 + 1e-2).all()) | row.isnan().any()):
            missing.setdefault("attention.probs", {})[layer] = "this model's attention returns rows that are not probabilities"
