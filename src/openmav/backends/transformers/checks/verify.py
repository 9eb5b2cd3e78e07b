"""Checks at load, on a few tokens: mav's attention against eager's, the lens of the last layer against the logits, decoding with a
cache against one pass over all, and the same past every length at which the configuration changes something.

A model that can't use mav's attention, or computes something else with it, runs with its own, whose modules return their rows:
always where it is eager behind transformers' interface, and with `output_attentions` where there is no interface. Sites that
can't be shown correctly are listed in `missing`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends.sites import HEAD_SITES, ROW_SITES
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.hooks import last_position, row_of
from openmav.backends.transformers.capture.module_state import Scan
from openmav.backends.transformers.checks import agreement
from openmav.backends.transformers.checks.agreement import Agreement, MoreKeys, RunMode
from openmav.backends.transformers.checks.reference import Rows, whole_pass_and_rows
from openmav.backends.transformers.decoding.decoder import Decoder, same_again
from openmav.backends.transformers.discovery.anatomy import NOT_ONE_VECTOR, Anatomy
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.discovery.trial import token_ids
from openmav.backends.transformers.discovery.values import output_tensor
from openmav.backends.transformers.head import linear_head
from openmav.backends.transformers.head.exact_head import ExactHead, difference, tolerance
from openmav.backends.transformers.head.neurons import NO_WAY, Neurons
from openmav.backends.transformers.loading import loader
from openmav.backends.transformers.loading.quantised import without_gradients
from openmav.system.memory import out_of_memory

ROWS_TOLERANCE = 1e-5
LINEAR_SITES = ("head.direction", "head.neurons")
NOT_COMPARED = "this model does not run with eager attention, so mav's was not compared with it"
NO_LENS = "the last layer's output is not one vector per token, so no other layer's output can replace it"
OWN = "attention is the model's own: its rows are what its modules return"
OWN_WITHOUT_ROWS = "attention is the model's own"


@dataclass
class Pass:
    """A prompt and one more token through a model; the lists hold an entry for the prompt's last token and one for the token after it."""

    logits: list[Tensor] = field(default_factory=list)  # [vocab] fp32
    rows: list[Rows] = field(default_factory=list)  # [heads, keys] fp32 of each attention module that recorded one
    residuals: list[Tensor] = field(default_factory=list)  # [width] after the last layer
    output: Any = None  # of the last layer, unchanged
    goes_back: bool = False  # the token's logits were the same after it was undone and fed again; False where that was not tried
    whole: bool = False  # decoded with a cache, and the same as one pass without one


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
        ours = _run(model, anatomy, arguments=arguments)
        if arguments and (why_no_rows := _changed_by_output_attentions(model, anatomy, ours)) is not None:
            arguments = {}
            ours = _run(model, anatomy)
        scan.look()
        mode = RunMode(None, arguments, last_alone=True)
        past = _past(model, anatomy, mode, scan)
        whole = agreement.needs_one_piece(model, sample_ids(model), mode, logits_tolerance(model.dtype))
    if not ours.whole:
        notes += agreement.with_whole_pass(model, sample_ids(model), torch.stack(ours.logits), logits_tolerance(model.dtype))
    head, head_errors, missing = _check_head(model, anatomy, ours)
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
    error = _logits_error(requested, _run(model, anatomy))
    if error <= logits_tolerance(model.dtype):
        return None
    return f"asked for its attention rows this model computes other logits, off by {error:.1g} of the largest"


def _with_ours(model: PreTrainedModel, anatomy: Anatomy) -> tuple[Pass | None, dict[str, float]]:
    """The pass with mav's attention, and how far it is from eager's; None, and eager set where it can be, if it is not to be used."""
    if not _takes_interface(model):
        return None, {}
    before = model.config._attn_implementation
    whole = _attempt(lambda: _eager_whole(model, anatomy))
    ours = _attempt(lambda: _run(model, anatomy, attention.NAME, back=True))
    recorded = ours is not None and _recorded_all(anatomy, ours)
    if ours is not None and recorded and whole is not None and all(bool(x.isfinite().all()) for x in (*ours.logits, *whole.logits)):
        errors = _errors(ours, whole)
        if _good(errors, model.dtype):  # one pass proves that mav's attention and the cache are both right
            ours.whole = True
            return ours, errors
    reference = _attempt(lambda: _run(model, anatomy, "eager"))  # shows which of the two is wrong
    errors = {} if ours is not None else {"attention logits": math.nan, "attention rows": math.nan}
    if ours is not None and reference is not None:
        errors = _errors(ours, reference)
    if ours is not None and recorded and _good(errors, model.dtype):
        loader.use_attention(model, attention.NAME)
        return ours, errors
    loader.use_attention(model, "eager" if reference is not None else before)
    return None, errors


def _errors(ours: Pass, reference: Pass) -> dict[str, float]:
    return {"attention logits": _logits_error(ours, reference), "attention rows": rows_error(ours, reference)}


def _good(errors: Mapping[str, float], dtype: torch.dtype) -> bool:
    """Whether all errors are within the limits; one that was not measured counts as within."""
    good = errors.get("attention logits", 0.0) <= logits_tolerance(dtype)
    return good and errors.get("attention rows", 0.0) <= rows_tolerance(dtype)


def _takes_interface(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be set: it is behind transformers' interface."""
    return bool(type(model)._can_set_attn_implementation())


# ---- running -------------------------------------------------------------------------------------------------------------


def _attempt(run: Callable[[], Pass]) -> Pass | None:
    """None where the model can't run with this attention."""
    try:
        return run()
    except Exception as error:  # whatever a model raises, it can't run with this attention
        if out_of_memory(error):
            raise
        return None


def _run(
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


def _eager_whole(model: PreTrainedModel, anatomy: Anatomy) -> Pass:
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


def _recorded_all(anatomy: Anatomy, ours: Pass) -> bool:
    """Whether the model really ran with mav's attention: every module that owns rows recorded one, both times."""
    owners = {m for m in anatomy.attention_modules if m is not None}
    return all(owners <= rows.keys() for rows in ours.rows)


def rows_tolerance(dtype: torch.dtype) -> float:
    """The allowed difference of attention weights computed in two orders; half precision adds up over the layers below."""
    return max(ROWS_TOLERANCE, 16 * torch.finfo(dtype).eps)


def logits_tolerance(dtype: torch.dtype) -> float:
    """The allowed difference of logits with attention computed in two orders, relative to the largest."""
    return max(tolerance(torch.float32), 8 * torch.finfo(dtype).eps)


def _logits_error(a: Pass, b: Pass) -> float:
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


def _check_head(
    model: PreTrainedModel, anatomy: Anatomy, ours: Pass
) -> tuple[ExactHead | None, dict[str, float], dict[str, dict[int, str]]]:
    """The head if its lens of the last layer is the model's logits; what was measured; what is missing."""
    everywhere = range(len(anatomy.layers))
    expected = torch.stack(ours.logits)
    if anatomy.missing.get("residual.after", {}).get(len(anatomy.layers) + anatomy.last) == NOT_ONE_VECTOR:
        return None, {}, {site: dict.fromkeys(everywhere, NO_LENS) for site in HEAD_SITES}
    try:
        head = ExactHead(model, anatomy.layers, ours.output, anatomy.carry, anatomy.last)
        error = difference(head.logits(torch.stack(ours.residuals)).cpu(), expected)
    except Exception as problem:
        if out_of_memory(problem):
            raise
        why = f"this model's own code does not run with its layers left out, as a lens needs ({_in_one_line(problem)})"
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


def _in_one_line(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:120]


def _not_followed(anatomy: Anatomy) -> dict[int, str]:
    """Layers whose parts can't be followed to the logits: up to the last one whose own parts are not known."""
    parts = enumerate(zip(anatomy.attention, anatomy.mlp, strict=True))
    unknown = [i for i, (a, m) in parts if a is None and m is None and i not in anatomy.idle]
    if not unknown:
        return {}
    why = f"what layer {unknown[-1]} adds is not known, so nothing up to there can be followed to the logits"
    return dict.fromkeys(range(unknown[-1] + 1), why)


def _linear(model: PreTrainedModel, anatomy: Anatomy, head: ExactHead, residuals: list[Tensor]) -> linear_head.LinearHead:
    """Fitted on the two real states and a combination of them."""
    states = torch.stack([*residuals, residuals[0] - 0.5 * residuals[1].flip(0)])
    rows = model.get_output_embeddings()
    return linear_head.find(model.config, rows, anatomy.final_norm, states, head.logits(states), tolerance(model.dtype))
