"""Assembles a model's anatomy: the stack of layers, a trial, a probe of each kind of layer, and a reason where a part is not known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openmav.backends.base import NO_ATTENTION, NO_MLP
from openmav.backends.transformers.discovery.anatomy import NOT_ONE_VECTOR, Anatomy, Coefficient, Part, Term
from openmav.backends.transformers.discovery.layer_view import AGAIN, OTHER, SHARED, LayerTrialView
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.discovery.probe import Probe, probe
from openmav.backends.transformers.discovery.recorder import LayerTrial
from openmav.backends.transformers.discovery.roles import ATTENTION, MLP, OTHER_ATTENTION
from openmav.backends.transformers.discovery.trial import Trial, token_ids, trial
from openmav.errors import LoadError, words_of
from openmav.record.ranges import ranges
from openmav.system.memory import out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = ("attention.probs", "attention.scores")
EVERY_SITE = (*ROWS, "residual.before", "residual.after", "attention.out", "mlp.out", "other.out")
SCATTERED = "this model keeps its attention and feed-forward blocks in lists of their own, so its layers are not known"
FEW = 3  # multipliers: so many are listed one by one
NO_EXPERTS = "no mixture of experts in this layer"


def search(model: PreTrainedModel) -> Anatomy:
    """See `anatomy.find`."""
    stack = _stack(model)
    trial_run = _run_trial(model, stack)
    runs = {id(run.layer): run for run in trial_run.layers}  # of a layer that runs more than once, the last run
    idle = [at for at, layer in enumerate(stack) if id(layer) not in runs]
    views = _views(model, [runs.get(id(layer)) or LayerTrial(layer) for layer in stack])
    missing, notes = _missing(views, trial_run.untraced), _notes(views)
    _mark_broken_chain([views[at] for at in range(len(views)) if at not in idle], views, missing)
    for at in idle:
        missing.update({site: {**missing[site], at: _why_idle(stack[at])} for site in EVERY_SITE})
    norm = _final_norm(trial_run)
    if len(runs) < len(trial_run.layers):
        notes.append("layers run more than once per token: the last run is shown")
    if idle:
        notes.append(f"{_why_idle(stack[idle[0]])}: {ranges(idle)}")
    if norm is None:
        notes.append("no final norm found")
    return Anatomy(
        layers=tuple(stack),
        final_norm=norm,
        attention=tuple(_part(view, ATTENTION) for view in views),
        mlp=tuple(_part(view, MLP) for view in views),
        other=tuple(_part(view, OTHER) for view in views),
        attention_modules=tuple(None if view.shares_rows else view.rows for view in views),
        kinds=tuple(_kind(view, model.config, index) for index, view in enumerate(views)),
        carry=tuple(view.carry for view in views) if any(not _is_one(view.carry) for view in views) else (),
        idle=frozenset(idle),
        mlp_internals=_mlp_internals(views, idle, trial_run.overwrites),
        missing={site: layers for site, layers in missing.items() if layers},
        notes=tuple(dict.fromkeys(notes)),
    )


def _views(model: nn.Module, runs: Sequence[LayerTrial]) -> list[LayerTrialView]:
    registered, shared = _registered(model, "attentions"), _shared(runs)
    probes: dict[Any, Probe | None] = {}
    for run in runs:
        if run.call is not None and run.signature not in probes:
            probes[run.signature] = probe(run)
            run.call = None
    return [LayerTrialView(run, probes.get(run.signature), registered, shared) for run in runs]


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


def _run_trial(model: PreTrainedModel, layers: list[nn.Module]) -> Trial:
    config = model.config.get_text_config(decoder=True)
    embedding = model.get_input_embeddings()
    vocab = int(getattr(config, "vocab_size", 0) or embedding.weight.shape[0])
    special = {v for c in (model.config, config) for k, v in vars(c).items() if k.endswith("_token_id") and isinstance(v, int)}
    device = embedding.weight.device
    ids = token_ids(vocab, frozenset(special))
    try:
        result = trial(model, layers, ids if device.type == "meta" else ids.to(device))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise LoadError(f"{type(model).__name__} does not run on text alone ({words_of(error)})") from error
    if not result.layers:
        raise LoadError(f"{type(model).__name__} ran none of its {len(layers)} layers: mav can't show what it does")
    return result


def _shared(runs: Sequence[LayerTrial]) -> frozenset[int]:
    """The ids of modules that ran in more than one layer."""
    times = Counter(module for run in runs for module in {id(run.layer.get_submodule(path)) for path in run.times})
    return frozenset(module for module, count in times.items() if count > 1)


# ---- the anatomy ---------------------------------------------------------------------------------------------------------


def _part(view: LayerTrialView, side: str) -> Part | None:
    if view.why_not(side):
        return None
    terms = view.terms(side)
    return tuple(Term(None if t.path is None else view.layer.get_submodule(t.path), t.coefficient) for t in terms) or None


def _kind(view: LayerTrialView, config: Any, index: int) -> str:
    """The kind of a layer's mixer; softmax attention wins where there are two."""
    if ATTENTION not in view.kinds:
        return view.kinds[0] if view.kinds else "none"
    return "sliding attention" if _slides(view, config.get_text_config(decoder=True), index) else "attention"


def _slides(view: LayerTrialView, config: Any, index: int) -> bool:
    """Whether the layer's attention uses a sliding window: by the module's own setting, else the config's layer types or window."""
    types = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if types and index < len(types):
        return str(types[index]).startswith(("sliding", "chunked", "local"))
    if view.rows is not None and hasattr(view.rows, "sliding_window"):
        return bool(view.rows.sliding_window)
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True) is not False


def _missing(views: Sequence[LayerTrialView], untraced: str) -> defaultdict[str, dict[int, str]]:
    """Why a layer lacks a site: {site: {layer: reason}}."""
    missing: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for index, view in enumerate(views):
        if view.rows is None or view.shares_rows:
            missing.update({site: {**missing[site], index: _why_no_rows(view)} for site in ROWS})
        if not view.terms(ATTENTION) or view.why_not(ATTENTION):
            reason = untraced or view.why_not(ATTENTION)
            missing["attention.out"][index] = reason if view.mixers and reason else NO_ATTENTION
        if not view.terms(MLP) or view.why_not(MLP):
            reason = untraced or view.why_not(MLP) or (FED_ON if view.feeds_mlp else "")
            missing["mlp.out"][index] = reason if view.has_mlp and reason else NO_MLP
        if view.why_not(OTHER) and not view.why:
            missing["other.out"][index] = view.why_not(OTHER)
        if view.trial.stream_out is None:
            missing["residual.after"][index] = NOT_ONE_VECTOR
    return missing


def _why_no_rows(view: LayerTrialView) -> str:
    if view.shares_rows:
        return "several layers share one attention module"
    if OTHER_ATTENTION in view.kinds[:1]:
        return "its attention computes no softmax that could be followed, so its rows are not known"
    return f"{view.kinds[0]} layer" if view.kinds else NO_ATTENTION


def _why_idle(layer: nn.Module) -> str:
    names = " ".join(type(module).__name__ for module in layer.modules()).lower()
    image = any(word in names for word in ("vision", "image", "crossattention"))
    return f"this layer does not run {'without an image' if image else 'on a text alone'}"


def _notes(views: Sequence[LayerTrialView]) -> list[str]:
    notes = []
    for view in views:
        if len(view.mixers) > len(view.terms(ATTENTION)) > 0:
            notes.append(f"{' and '.join(dict.fromkeys(view.kinds))} follow one another: attention out is what the last of them adds")
        elif len(set(view.kinds)) > 1:
            notes.append(f"attention out is the sum of {' and '.join(dict.fromkeys(view.kinds))}")
        elif len(view.mixers) > 1:
            notes.append(f"a layer holds {len(view.mixers)} attention blocks: their sum is shown, and the rows of the first")
        if any(term.renews for term in view.terms(OTHER)):
            notes.append("a layer replaces the residual stream by its norm, which is shown as another term that it adds")
        if any(term.constant for term in view.terms(OTHER)):
            notes.append("a layer adds a bias of its own to the residual stream")
        if any(not (term.constant or term.renews) for term in view.terms(OTHER)):
            notes.append("a layer adds something that is neither its attention's nor its MLP's, such as a per-layer input")
    terms = [term for view in views for side in (ATTENTION, MLP, OTHER) for term in view.terms(side) if not term.constant]
    carries = [view.carry for view in views if not any(term.renews for term in view.terms(OTHER))]
    notes += [f"sub-blocks are scaled by {by} before they are added" for by in _multipliers([term.coefficient for term in terms])]
    return notes + [f"layers multiply the residual stream by {by}" for by in _multipliers(carries)]


def _multipliers(coefficients: Sequence[Coefficient]) -> list[str]:
    """All multipliers but 1 as text: the numbers, or their range where there are many, and factors per channel."""
    numbers = list(dict.fromkeys(f"{c:.6g}" for c in sorted({c for c in coefficients if not isinstance(c, Tensor)} - {1.0})))
    texts = [", ".join(numbers) if len(numbers) <= FEW else f"{numbers[0]} to {numbers[-1]}"] if numbers else []
    return texts + (["a factor per channel"] if any(isinstance(c, Tensor) for c in coefficients) else [])


def _is_one(carry: Coefficient) -> bool:
    return not isinstance(carry, Tensor) and carry == 1


def _mark_broken_chain(ran: Sequence[LayerTrialView], views: Sequence[LayerTrialView], missing: defaultdict[str, dict[int, str]]) -> None:
    """Report layers whose output is not the input of the next layer; where that holds for all, the list is no stack of layers."""
    pairs = [(above, above.trial.stream_out, below.trial.stream_in) for above, below in pairwise(ran)]
    broken = [view for view, out, received in pairs if out is not None and received is not None and not _same(out, received)]
    if broken and len(broken) == len(pairs):
        missing.update({site: dict.fromkeys(range(len(views)), SCATTERED) for site in EVERY_SITE if site != "other.out"})
        return
    for view in broken:
        missing["residual.after"][views.index(view)] = "the input of the next layer is not this layer's output"


def _final_norm(shown: Trial) -> nn.Module | None:
    """The first module without weight matrices whose input is the last layer's output."""
    last = shown.layers[-1].stream_out
    return next((module for module, received in shown.after if _same(last, received)), None)


def _same(output: Tensor | None, received: Tensor | None) -> bool:
    """Whether an output is what was received, up to a change of the float type between them."""
    return output is not None and received is not None and torch.equal(output.to(received), received)


# ---- MLP internals --------------------------------------------------------------------------------------------------------


def _mlp_internals(views: Sequence[LayerTrialView], idle: Sequence[int], overwrites: bool) -> MlpInternals:
    """The last linear map of each MLP, and the experts that it selects from."""
    missing: dict[str, dict[int, str]] = {"mlp.hidden": {}, "router.experts": {}, "router.weights": {}}
    linear: list[nn.Module | None] = []
    factors: list[Any] = []
    experts: list[nn.Module | None] = []
    chosen: list[int | None] = []
    for index, view in enumerate(views):
        why = _why_idle(view.layer) if index in idle else _why_no_neurons(view)
        term = None if why else view.neurons[0]
        linear.append(view.layer.get_submodule(term.linear) if term is not None and term.linear is not None else None)
        factors.append(None if term is None or view.why else term.factor)
        if why:
            missing["mlp.hidden"][index] = why
        path, count = view.router or (view.experts, None)
        experts.append(None if path is None or index in idle else view.layer.get_submodule(path))
        chosen.append(count)
        if experts[-1] is None:
            reason = _why_idle(view.layer) if index in idle else UNREAD if view.chooses_experts else NO_EXPERTS
            missing["router.experts"][index] = missing["router.weights"][index] = reason
    missing = {site: layers for site, layers in missing.items() if layers}
    return MlpInternals(tuple(linear), tuple(experts), overwrites, tuple(factors), tuple(chosen), missing)


FED_ON = "its MLP's output is the input of another block, and is not added to the residual stream"
UNREAD = "no module of this mixture of experts has its selection as input or output, as ids and weights or as scores"


def _why_no_neurons(view: LayerTrialView) -> str:
    """Why the neurons of a layer's MLP are not known; empty where they are."""
    if view.chooses_experts:
        return "mixture of experts: see router" if view.experts or view.router else "mixture of experts"
    terms = view.neurons
    if not terms:
        return FED_ON if view.feeds_mlp else view.why if view.has_mlp and view.why else NO_MLP
    if len(terms) > 1:
        return f"the layer adds the outputs of {len(terms)} MLPs: no single linear map reads all neurons"
    path = terms[0].linear
    if path is None:
        return "the last linear map of the MLP was not found"
    if id(view.layer.get_submodule(path)) in view.shared:
        return SHARED
    return AGAIN if view.trial.times[path] != 1 else ""
