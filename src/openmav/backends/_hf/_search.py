"""Puts a model's anatomy together: the stack of layers, a trial, a fit for each kind of layer, and a reason where there is none."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from openmav.backends._hf._fit import CARRY, Solution, explain, problem, without_copies
from openmav.backends._hf._roles import ATTENTION, MLP
from openmav.backends._hf._trial import Call, LayerTrial, Trial, token_ids, trial
from openmav.backends._hf._view import View
from openmav.backends._hf.anatomy import Anatomy, Part, Term
from openmav.errors import LoadError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = ("attention.probs", "attention.scores")
SINGLE_FITS = 4  # layers of a group that are tried on their own if the fit of the group does not hold for them


def search(model: PreTrainedModel) -> Anatomy:
    """See `anatomy.find`."""
    shown = _try(model, _stack(model))
    registered = _registered(model, "attentions")
    runs = {id(run.layer): run for run in shown.layers}  # of a layer that runs more than once, the last run
    shared = _shared(list(runs.values()))
    views = [View(run, registered, shared) for run in runs.values()]
    _solve(views, _known_coefficients(model.config))
    norm = _final_norm(shown)
    missing, notes = _missing(views), _notes(views)
    broken = _broken_chain(views)
    if broken:
        missing["residual.after"] = dict.fromkeys(broken, "the next layer takes something else than this layer's output")
    if len(runs) < len(shown.layers):
        notes.append("layers run more than once a token: the last run is shown")
    if norm is None:
        notes.append("no final norm found")
    return Anatomy(
        layers=tuple(view.layer for view in views),
        final_norm=norm.module if norm else None,
        attention=tuple(_part(view, ATTENTION) for view in views),
        mlp=tuple(_part(view, MLP) for view in views),
        attention_modules=tuple(None if view.shares_rows else view.rows for view in views),
        kinds=tuple(_kind(view, model.config, index) for index, view in enumerate(views)),
        carry=tuple(view.carry for view in views),
        missing={site: layers for site, layers in missing.items() if layers},
        notes=tuple(dict.fromkeys(notes)),
    )


# ---- the trial -----------------------------------------------------------------------------------------------------------


def _registered(model: nn.Module, what: str) -> tuple[type, ...]:
    """The classes that transformers itself records as "hidden_states" or "attentions", of this model and those inside it."""
    classes: list[type] = []
    for module in model.modules():
        entry = (getattr(type(module), "_can_record_outputs", None) or {}).get(what, ())
        for one in entry if isinstance(entry, (list, tuple)) else (entry,):
            target = getattr(one, "target_class", one)
            classes += [target] if isinstance(target, type) else []
    return tuple(dict.fromkeys(classes))


def _stack(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers: the list of modules of the registered class, else as long as the config says, else the heaviest."""
    known = _registered(model, "hidden_states")
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 0]

    if not lists:
        raise LoadError(f"{type(model).__name__} has no list of layers: mav can't show what it does")
    ranks = [(isinstance(items[0], known), len(items) == count, sum(p.numel() for p in items.parameters())) for items in lists]
    return list(lists[ranks.index(max(ranks))])


def _try(model: PreTrainedModel, layers: list[nn.Module]) -> Trial:
    config = model.config.get_text_config(decoder=True)
    embedding = model.get_input_embeddings()
    vocab = int(getattr(config, "vocab_size", 0) or embedding.weight.shape[0])
    special = {v for c in (model.config, config) for k, v in vars(c).items() if k.endswith("_token_id") and isinstance(v, int)}
    device = embedding.weight.device
    ids = token_ids(vocab, frozenset(special))
    try:
        shown = trial(model, layers, ids if device.type == "meta" else ids.to(device))
    except Exception as error:
        raise LoadError(f"{type(model).__name__} does not run on token ids alone: {type(error).__name__}: {error}") from error
    if not shown.layers:
        raise LoadError(f"{type(model).__name__} ran none of its {len(layers)} layers: mav can't show what it does")
    return shown


def _shared(runs: Sequence[LayerTrial]) -> frozenset[int]:
    """The ids of modules that ran in more than one layer."""
    times = Counter(module for run in runs for module in {id(call.module) for call in run.calls.values()})
    return frozenset(module for module, count in times.items() if count > 1)


# ---- the fit -------------------------------------------------------------------------------------------------------------


def _known_coefficients(config: Any) -> list[float]:
    """Values that a coefficient may be exactly: 1, and every number in the config, alone or over the square root of the depth."""
    text = config.get_text_config(decoder=True)
    depth = getattr(text, "num_hidden_layers", None) or 1
    numbers = {float(v) for v in vars(text).values() if isinstance(v, float) and v and math.isfinite(v)}
    scaled = {v / math.sqrt(depth) for v in numbers} | {1 / math.sqrt(depth), 1 / math.sqrt(2 * depth)}
    return [1.0, -1.0, *sorted(numbers), *sorted(scaled)]


def _solve(views: Sequence[View], known: Sequence[float]) -> None:
    """One fit for all layers that are built alike, checked on each of them; where it does not hold, fits of single layers."""
    alike: dict[tuple[Any, ...], list[View]] = defaultdict(list)
    for view in views:
        if view.names:
            alike[view.signature].append(view)
    for group in alike.values():
        _spread(_explain(group, known), group, known)
        for view in group[:SINGLE_FITS]:
            if view.solution is None and len(group) > 1:
                _spread(_explain([view], known), group, known)


def _explain(group: Sequence[View], known: Sequence[float]) -> Solution | None:
    """What all these layers add; if nothing explains it, what they add to a rescaled residual stream."""
    trials, first = [view.trial for view in group], group[0]
    names = without_copies(trials, first.names)
    found = explain(problem(trials, names), first.anchors, first.sensible, known)
    return found or explain(problem(trials, [*names, CARRY]), [*first.anchors, CARRY], first.sensible, known)


def _spread(solution: Solution | None, group: Sequence[View], known: Sequence[float]) -> None:
    """Give the solution to each unsolved layer where it holds, if need be with coefficients of the layer's own."""
    if solution is None:
        return
    for view in group:
        if view.solution is None:
            own = problem([view.trial], list(solution.terms))
            tries = own.check(solution.terms), own.solve(range(len(own.names)), known)
            view.solution = next((found for found in tries if found.holds), None)


# ---- what was found ------------------------------------------------------------------------------------------------------


def _part(view: View, side: str) -> Part | None:
    terms = view.terms(side)
    return tuple(Term(view.layer.get_submodule(path), c) for path, c in terms.items()) or None


def _kind(view: View, config: Any, index: int) -> str:
    """The kind of a layer's mixer; softmax attention wins where there are two."""
    if ATTENTION not in view.mixers:
        return view.mixers[0] if view.mixers else "none"
    return "sliding attention" if _slides(view, config.get_text_config(decoder=True), index) else "attention"


def _slides(view: View, config: Any, index: int) -> bool:
    """Whether the layer's attention sees a window only, by the module's own window, else the config's list of layer types or window."""
    types = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if types and index < len(types):
        return str(types[index]).startswith(("sliding", "chunked", "local"))
    if view.rows is not None and hasattr(view.rows, "sliding_window"):
        return bool(view.rows.sliding_window)
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True) is not False


def _missing(views: Sequence[View]) -> dict[str, dict[int, str]]:
    """Why a layer lacks a site: {site: {layer: reason}}."""
    missing: dict[str, dict[int, str]] = defaultdict(dict)
    for index, view in enumerate(views):
        if view.rows is None or view.shares_rows:
            missing.update({site: {**missing[site], index: _why_no_rows(view)} for site in ROWS})
        if not view.terms(ATTENTION):
            missing["attention.out"][index] = _why_unsolved(view) if view.mixers else "no attention in this layer"
        if not view.terms(MLP):
            missing["mlp.out"][index] = _why_unsolved(view) if view.has_mlp else "no MLP in this layer"
        if view.trial.went_out is None:
            missing["residual.after"][index] = "the layer's output is not one vector per token"
    return missing


def _why_no_rows(view: View) -> str:
    if view.shares_rows:
        return "several layers share one attention module"
    return f"{view.mixers[0]} layer" if view.mixers else "no attention in this layer"


def _why_unsolved(view: View) -> str:
    if not view.usable:
        return "the residual stream is not one vector per token here"
    if not view.finite:
        return "the layer computes NaN or infinity"
    if view.renormalises:
        return "the layer normalises the residual stream itself, so its parts are not simply added"
    return "no sum of module outputs explains what the layer adds"


def _notes(views: Sequence[View]) -> list[str]:
    notes = []
    for view in views:
        if len(set(view.mixers)) > 1:
            notes.append(f"attention out is the sum of {' and '.join(dict.fromkeys(view.mixers))}")
        elif len(view.mixers) > 1:
            notes.append(f"a layer holds {len(view.mixers)} attention blocks: their sum is shown, and the rows of the first")
        multipliers = sorted({*view.terms(ATTENTION).values(), *view.terms(MLP).values()} - {1.0})
        if multipliers:
            notes.append(f"sub-blocks are added times {', '.join(f'{c:.6g}' for c in multipliers)}")
        if view.carry != 1:
            notes.append(f"a layer multiplies the residual stream by {view.carry:.6g}")
    return notes


def _broken_chain(views: Sequence[View]) -> list[int]:
    """The layers whose output is not what the next layer takes."""
    pairs = [(above.trial.went_out, below.trial.came_in) for above, below in pairwise(views)]
    return [i for i, (out, taken) in enumerate(pairs) if out is not None and taken is not None and not torch.equal(out, taken)]


def _final_norm(shown: Trial) -> Call | None:
    """The first module without weight matrices that takes the last layer's output."""
    last = shown.layers[-1].went_out
    return next((call for call in shown.after if last is not None and call.given is not None and torch.equal(call.given, last)), None)
