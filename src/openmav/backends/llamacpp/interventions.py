"""Interventions in llama.cpp: values are changed in the callback at the node where they are computed, so all that follows uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp.anatomy import Anatomy
from openmav.backends.llamacpp.context import Context
from openmav.backends.llamacpp.examined import Examined
from openmav.backends.llamacpp.insides import Layer
from openmav.backends.llamacpp.passes import Changes, summed
from openmav.backends.llamacpp.tap import Change, Tap
from openmav.backends.shared.array_frame import as_tensor
from openmav.backends.shared.edits import Edit, need_range
from openmav.backends.sites import EDITABLE, Site, SiteName
from openmav.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

READ: dict[SiteName, tuple[str, ...]] = {  # what is read for a site's value
    "attn": ("attention.out",),
    "mlp": ("mlp.out",),
    "resid": ("residual.after",),
    "layer": ("residual.after", "residual.before"),
    "head": ("attention.heads",),
    "neuron": ("mlp.hidden",),
}
NO_HEADS = "the input of the map that its heads go through last was not found"


def width_of(examined: Examined, site: Site) -> int:
    """Columns of the site's value. Raises UsageError for a site that this model does not have."""
    need_range("layer", site.layer, examined.layers, "this model")
    why = why_not(examined, site)
    if why is not None:
        raise UsageError(f"not available: {EDITABLE[site.name].words} of layer {site.layer}: {why}")
    if site.name == "head":
        heads = examined.layer_heads[site.layer]
        need_range("head", site.index or 0, heads, f"layer {site.layer}")
        return examined.head_columns[site.layer] // heads
    if site.name == "neuron":
        need_range("neuron", site.index or 0, examined.hidden[site.layer], f"layer {site.layer}")
        return 1
    return examined.width


def why_not(examined: Examined, site: Site) -> str | None:
    """Why a layer has no such site; None where it has."""
    why = examined.missing.get(EDITABLE[site.name].depends_on, {}).get(site.layer)
    if why is None and site.name == "layer":
        why = examined.missing.get("residual.before", {}).get(site.layer)
    if why is None and site.name == "head" and not examined.head_columns[site.layer]:
        why = NO_HEADS
    return why


def columns(examined: Examined, site: Site) -> slice:
    """The columns of a site in the node that has the values of all heads, or of all neurons."""
    if site.name not in ("head", "neuron") or site.index is None:
        return slice(None)
    width = width_of(examined, site)
    return slice(site.index * width, (site.index + 1) * width)


def changes_of(examined: Examined, edits: Sequence[Edit]) -> Changes:
    """The changes of these edits in any graph of the model, in order."""

    def changes(anatomy: Anatomy) -> list[tuple[int, Change]]:
        result: list[tuple[int, Change]] = []
        for edit in edits:
            result += _placed(anatomy.layers[edit.site.layer], edit, columns(examined, edit.site))
        return sorted(result, key=lambda pair: isinstance(pair[1], _Keep))  # what is kept is kept as it was changed

    return changes


def _placed(layer: Layer, edit: Edit, at: slice) -> list[tuple[int, Change]]:
    name = edit.site.name
    if name in ("attn", "mlp"):
        nodes = layer.attention if name == "attn" else layer.mlp
        rest = {"scale": edit, "set": replace(edit, value=0.0), "add": replace(edit, action="scale", value=1.0)}[edit.action]
        return [(node, _Apply(edit if node == nodes[0] else rest, at)) for node in nodes]
    if name == "layer":
        keep = _Keep(layer.before)
        return [(layer.before, keep), (layer.after, _Added(edit, layer.before))]
    node = {"resid": layer.after, "head": layer.heads, "neuron": layer.hidden}[name]
    assert node is not None
    return [(node, _Apply(edit, at))]


class _Apply:
    """Applies an edit to some columns."""

    def __init__(self, edit: Edit, at: slice) -> None:
        self.edit, self.at = edit, at

    def __call__(self, tap: Tap, value: NDArray[np.float32]) -> NDArray[np.float32] | None:
        own = as_tensor(value[:, self.at].copy())[None]
        edited = self.edit.apply(own, tap.start)
        if edited is own:
            return None
        result: NDArray[np.float32] = value.copy()
        result[:, self.at] = edited[0].numpy()
        return result


class _Keep:
    """Keeps the stream before a layer."""

    def __init__(self, node: int) -> None:
        self.node = node

    def __call__(self, tap: Tap, value: NDArray[np.float32]) -> None:
        tap.keep[self.node] = value.copy()


class _Added:
    """Applies an edit to what a layer added to the stream; rows that it does not reach stay as they are, bit for bit."""

    def __init__(self, edit: Edit, before: int) -> None:
        self.edit, self.before = edit, before

    def __call__(self, tap: Tap, value: NDArray[np.float32]) -> NDArray[np.float32] | None:
        came = tap.keep[self.before]
        added = as_tensor(value - came)[None]
        edited = self.edit.apply(added, tap.start)
        if edited is added:
            return None
        reached = (edited != added)[0].any(-1).numpy()
        result: NDArray[np.float32] = value.copy()
        result[reached] = came[reached] + edited[0].numpy()[reached]
        return result


def values_of(examined: Examined, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
    """See backends.shared.edits.Model: read in a context of its own, in chunks."""
    wanted = {name for site in sites for name in READ[site.name]}
    parts: dict[Site, list[NDArray[np.float32]]] = {site: [] for site in sites}
    context = Context(examined.weights, examined.settings, len(ids))
    passes = examined.passes(context)
    try:
        for start in range(0, len(ids), context.chunk):
            values = passes.run(ids[start : start + context.chunk], start, wanted, "all")
            for site in sites:
                first, *rest = (_rows(summed(values, name, site.layer)) for name in READ[site.name])
                parts[site].append((first - rest[0] if rest else first)[:, columns(examined, site)].copy())
    finally:
        context.close()
    return {site: as_tensor(np.concatenate(rows)) for site, rows in parts.items()}


def _rows(value: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert value is not None
    return value.reshape(-1, value.shape[-1])
