"""Describes in words how a model of llama.cpp is run and where its sites are, for `mav doctor`."""

from __future__ import annotations

from openmav.backends.base import ModelCheck
from openmav.backends.llamacpp.examined import Examined
from openmav.backends.llamacpp.passes import nodes_of
from openmav.record.ranges import ranges

NAMES = {
    "attention.out": "attention adds",
    "mlp.out": "MLP adds",
    "other.out": "other terms added",
    "attention.probs": "attention rows",
    "mlp.hidden": "neurons",
    "router.experts": "experts",
}
CUT, AGAIN = "the cache is cut", "from a copy of the state, and the tokens after it are read again"


def describe(examined: Examined) -> list[tuple[str, str]]:
    """(what, where) for every site; layers that are alike are grouped."""
    weights, parts = examined.weights, examined.parts
    lines = [
        (
            "llama.cpp",
            f"llama-cpp-python {weights.native.version}, architecture {weights.architecture}, cache in {examined.settings.cache}",
        ),
        ("taking tokens back", CUT if examined.cuts else AGAIN),
    ]
    if weights.workers is not None:
        lines.append(("workers", ", ".join(weights.workers.names)))
    if parts is None:
        return lines
    kinds: dict[str, list[int]] = {}
    for number, layer in enumerate(parts.layers):
        kinds.setdefault(layer.kind, []).append(number)
    lines.append(("kinds", "; ".join(f"{kind} ({ranges(layers)})" for kind, layers in kinds.items())))
    for site, what in NAMES.items():
        shown = [n for n, layer in enumerate(parts.layers) if nodes_of(layer, site) and n not in examined.missing.get(site, {})]
        if shown or site != "other.out":
            lines.append((what, f"found in the graph ({ranges(shown)})" if shown else "none"))
    head = examined.head
    lines.append(("head", "not usable" if head is None else "llama.cpp's own operations after the last layer"))
    lines.append(("directions", "none" if head is None or head.linear is None else "rows of the head through the final norm"))
    return lines


def checks(examined: Examined) -> list[ModelCheck]:
    """What was compared at load."""
    errors = examined.errors
    return [
        ModelCheck("values read at few stops, different", errors.get("stops"), 0, "layers with another value at a stop each"),
        ModelCheck("logits with stops = without", errors.get("capture"), 0, "of the largest logit"),
        ModelCheck("directions give the logits", errors.get("directions"), examined.linear_limit, "of the largest logit"),
    ]
