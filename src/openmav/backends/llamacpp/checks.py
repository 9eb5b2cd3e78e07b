"""The checks at load, on a few tokens: which sites of a model are proved.

Everything that is compared here is computed in two ways: parts against the residual stream, values read at as few stops as possible
against the same values read each where it is computed, logits with and without capture, a token dropped and read again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openmav.backends.llamacpp import anatomy, head_checks
from openmav.backends.llamacpp.context import Context, ContextSettings, Weights
from openmav.backends.llamacpp.examined import Examined, apart
from openmav.backends.llamacpp.insides import Layer
from openmav.backends.llamacpp.native import Tensor
from openmav.backends.llamacpp.passes import PARTS, Passes, nodes_of, summed
from openmav.backends.llamacpp.tap import Values
from openmav.backends.sites import HEAD_SITES, ROW_SITES, SITES
from openmav.errors import LoadError

SUMS = 1e-5  # of the sizes of what is added: what parts may miss of the stream
ROWS = 1e-4  # what a row may sum to beyond 1
SIZE = 256  # tokens of the context in which a model is tried
UNORDERED = "llama.cpp keeps the keys of a window in no order where other layers keep a state"
NOT_EXACT = "the values read in one pass are not those of another"


def examine(weights: Weights, settings: ContextSettings) -> Examined:
    """Raises LoadError for a model that can't be run token by token."""
    layers = weights.count("n_layer")
    examined = Examined(weights, settings, layers, weights.count("n_embd"))
    llama = weights.native.llama
    other = llama.llama_model_has_encoder(weights.handle) or llama.llama_model_is_diffusion(weights.handle)
    if other or not llama.llama_model_has_decoder(weights.handle) or examined.layers < 1:
        raise LoadError(f"{weights.path.name} does not generate text token by token: its architecture is {weights.architecture}")
    if llama.llama_vocab_type(weights.vocab) == llama.LLAMA_VOCAB_TYPE_NONE:
        raise LoadError(f"{weights.path.name} holds no vocabulary; convert it again with its tokenizer, or try another file")
    context = Context(weights, settings, SIZE)
    try:
        _try(examined, context)
    finally:
        context.close()
    return examined


def sample(weights: Weights, count: int = 8) -> list[int]:
    """A few ordinary tokens, always the same for a model."""
    llama, vocab, total = weights.native.llama, weights.vocab, weights.vocabulary
    result: list[int] = []
    at = 1
    while len(result) < count and at < 64 * count:
        token = (at * 7919) % total
        at += 1
        if not llama.llama_vocab_is_control(vocab, token) and not llama.llama_vocab_is_eog(vocab, token):
            result.append(token)
    return result or [0]


def _try(examined: Examined, context: Context) -> None:
    ids = sample(examined.weights)
    first, last = ids[:-1], ids[-1]
    examined.sample = tuple(ids)
    passes = examined.passes(context)
    context.decode(first, "none")
    try:
        learned = passes.learn([last])
    except anatomy.NotFollowedError as problem:
        examined.cuts = _cuts(context, len(first))
        examined.lack(sorted(SITES | HEAD_SITES), range(examined.layers), f"{anatomy.NO_STREAM}: {problem}")
        return
    if learned.graph.nodes[learned.anatomy.logits].shape[0] != examined.weights.vocabulary:
        raise LoadError(f"{examined.weights.path.name} does not predict tokens: its architecture is {examined.weights.architecture}")
    examined.parts = learned.anatomy
    bare = context.logits()
    examined.cuts = _cuts(context, len(first))
    for number, layer in enumerate(learned.anatomy.layers):
        for site, why in layer.missing.items():
            examined.lack([site], [number], why)
    _sizes(examined, passes)
    values = _values(examined, context, passes, first, last)
    logits = context.logits()
    exact = _values(examined, context, examined.passes(context, exact=True), first, last)
    _prove(examined, values, exact)
    examined.errors["capture"] = apart(logits, bare)
    state = np.array(values["residual.after", examined.layers - 1, 0]).reshape(1, -1)
    head_checks.check(examined, passes.learned["one"].graph, state, logits[None])


def _cuts(context: Context, length: int) -> bool:
    """Whether the last token can be dropped."""
    return context.cut(length)


def _values(examined: Examined, context: Context, passes: Passes, first: Sequence[int], last: int) -> Values:
    """What is read at the last of these tokens."""
    context.clear()
    context.decode(first, "none")
    state = None if examined.cuts else context.state()
    if "one" not in passes.learned:
        passes.learn([last])
        if state is None:
            context.cut(len(first))
        else:
            context.restore(state)
    return passes.run([last], len(first), examined.readable)


# ---- what is proved --------------------------------------------------------------------------------------------------------


def _prove(examined: Examined, values: Values, exact: Values) -> None:
    assert examined.parts is not None
    worst, differing = 0.0, 0.0
    for number, layer in enumerate(examined.parts.layers):
        for site in sorted(examined.readable):
            if examined.missing.get(site, {}).get(number) is None and nodes_of(layer, site):
                one, other = summed(values, site, number), summed(exact, site, number)
                same = one is not None and other is not None and np.array_equal(one, other, equal_nan=True)
                differing = max(differing, 0.0 if same else 1.0)
                if not same:
                    examined.lack([site], [number], NOT_EXACT)
        error = _sum_error(values, number, layer)
        if not error <= SUMS:
            examined.lack(sorted(PARTS), [number], f"what was found does not add up to the residual stream (off by {error:.1g})")
        else:
            worst = max(worst, error)
        _prove_rows(examined, values, number)
    examined.errors |= {"sums": worst, "stops": differing}


def _sum_error(values: Values, number: int, layer: Layer) -> float:
    """What the parts miss of what the layer adds, relative to the sizes of the terms, and the largest number."""
    before, after = summed(values, "residual.before", number), summed(values, "residual.after", number)
    if before is None or after is None:
        return math.inf
    parts = [part for site in PARTS if (part := summed(values, site, number)) is not None]
    if len(parts) != sum(bool(nodes_of(layer, site)) for site in PARTS):
        return math.inf
    sizes = np.abs(before) + sum(np.abs(part) for part in parts)
    missed = np.abs(before + sum(parts) - after) / np.maximum(sizes, 1e-30)
    return float(missed.max())


def _prove_rows(examined: Examined, values: Values, number: int) -> None:
    if ("attention.probs", number, 0) not in values:
        return
    row = values["attention.probs", number, 0]
    tokens = len(examined.sample)
    rest, row = row[..., tokens:], row[..., :tokens]
    why = None
    if examined.weights.has_windows and examined.weights.stateful:
        why = UNORDERED
    elif not ((row >= 0).all() and (row.sum(-1) <= 1 + ROWS).all()):
        why = "its rows are no probabilities"
    elif rest.size and float(np.abs(rest).max()) > 0:
        why = "it looks at keys that are no tokens of the text"
    if why is not None:
        examined.lack(sorted(ROW_SITES), [number], why)


# ---- sizes -----------------------------------------------------------------------------------------------------------------


def _sizes(examined: Examined, passes: Passes) -> None:
    """Heads, neurons, and the bytes of the cache, as the graph has them."""
    learned = passes.learned["one"]
    nodes = learned.graph.nodes
    layers = learned.anatomy.layers
    heads = [0 if layer.rows is None else nodes[layer.rows].shape[2] for layer in layers]
    examined.heads, examined.layer_heads = max(heads), tuple(heads)
    examined.hidden = tuple(0 if layer.hidden is None else nodes[layer.hidden].shape[0] for layer in layers)
    examined.head_columns = tuple(0 if layer.heads is None else nodes[layer.heads].shape[0] for layer in layers)
    caches: dict[str, Tensor] = {}
    for node in nodes:
        for source in learned.graph.sources(node):
            if source.is_leaf and source.name.startswith("cache_"):
                root = source
                while root.view_of:
                    root = learned.graph.at(root.view_of)
                caches[root.name] = Tensor.from_address(root.address)
    per_token, per_text = 0, 0
    for name, tensor in caches.items():
        if name.startswith(("cache_k", "cache_v")):
            per_token += tensor.nb[1]
        else:
            per_text += tensor.nb[1] if tensor.ne[1] > 1 else tensor.nb[2]
    examined.per_token, examined.per_text = per_token, per_text
