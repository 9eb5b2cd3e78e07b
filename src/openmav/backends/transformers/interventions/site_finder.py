"""The intervention sites of a transformers model: the places of each, tried out before they are used.

Each kind of site is tried once, when it is first requested, in all layers at once on a few tokens: without a sub-block exactly the
rest of its layer must be left, an ablated layer must pass its input through, and each place must run once per forward pass. Where
that does not hold the site is not available, and the reason says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from openmav.backends.shared.edits import Edit, need_range
from openmav.backends.sites import EDITABLE, Site, SiteName
from openmav.backends.transformers.checks.passes import sample_ids
from openmav.backends.transformers.decoding.decoder import Decoder
from openmav.backends.transformers.discovery.anatomy import Anatomy, Part
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.interventions import projections
from openmav.backends.transformers.interventions.hook_edits import InterventionHooks, Place, PlacedEdit, Reading
from openmav.backends.transformers.loading import quantised
from openmav.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Try: TypeAlias = tuple[Literal["set", "scale"], float]
LEFT = 1e-3  # of what a sub-block adds: what may be left of it when it is ablated


class SiteFinder:
    """The places of a model's sites. `missing` is what the backend says that it does not have; `name` is the model's."""

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        mlp_internals: MlpInternals,
        missing: Mapping[str, Mapping[int, str]],
        *,
        from_outputs: bool,
    ) -> None:
        self.model = model
        self.anatomy = anatomy
        self.mlp_internals = mlp_internals
        self.missing = missing
        self.from_outputs = from_outputs
        self._heads: tuple[projections.Projection | None, ...] = ()
        self._reasons: dict[SiteName, dict[int, str]] = {}  # of the kinds that were tried: the layers that don't have it, and why
        self._hidden: dict[int, int] = {}  # neurons of a layer

    def places(self, site: Site) -> tuple[Place, ...]:
        """Where the site's value passes. Raises UsageError that says the range, or why it is not available."""
        need_range("layer", site.layer, len(self.anatomy.layers), "this model")
        why = self._tried(site.name).get(site.layer)
        if why is not None:
            raise UsageError(f"not available: {EDITABLE[site.name].words} of layer {site.layer}: {why}")
        if site.name == "head":
            projection = self._heads[site.layer]
            assert projection is not None
            need_range("head", site.index or 0, projection.heads, f"layer {site.layer}")
        if site.name == "neuron":
            need_range("neuron", site.index or 0, self._hidden[site.layer], f"layer {site.layer}")
        return self._places(site)

    def _places(self, site: Site) -> tuple[Place, ...]:
        layer, index = site.layer, site.index or 0
        if site.name == "head":
            projection = self._heads[layer]
            assert projection is not None
            return (Place(projection.module, "input", columns=projection.columns(index)),)
        if site.name == "neuron":
            module = self.mlp_internals.last_linear[layer]
            assert module is not None
            return (Place(module, "input", columns=(index, index + 1)),)
        if site.name in ("attn", "mlp"):
            return _of_part(self._part(site))
        return (Place(self.anatomy.layers[layer], "output" if site.name == "resid" else "change"),)

    def _part(self, site: Site) -> Part | None:
        return (self.anatomy.attention if site.name == "attn" else self.anatomy.mlp)[site.layer]

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends.shared.edits.Model."""
        places = {site: self.places(site) for site in sites}
        for site in sites:
            if site.layer in self.anatomy.idle:
                raise UsageError(f"nothing to read in layer {site.layer}: {self.missing['residual.after'][site.layer]}")
        reading = Reading([place for some in places.values() for place in some])
        with quantised.without_gradients(self.model), reading.on():
            Decoder(self.model).prefill(ids, {}, lambda _n: None)
        return {site: torch.stack([reading[place] for place in some]).sum(0) for site, some in places.items()}

    # ---- trying it -------------------------------------------------------------------------------------------------------

    def _tried(self, name: SiteName) -> dict[int, str]:
        """The layers that lack this kind of site, and why."""
        if name not in self._reasons:
            self._reasons[name] = self._try(name)
        return self._reasons[name]

    def _try(self, name: SiteName) -> dict[int, str]:
        layers = range(len(self.anatomy.layers))
        idle = self.anatomy.idle if name == "layer" else frozenset()  # they add nothing, so there is nothing to ablate
        reasons = {layer: why for layer, why in self.missing.get(EDITABLE[name].depends_on, {}).items() if layer not in idle}
        if name == "head" and not self._heads:
            self._heads = projections.find(self.model, self.anatomy, from_outputs=self.from_outputs)
            reasons = {layer: reasons.get(layer, projections.NOT_FOUND) for layer in layers if self._heads[layer] is None}
        rest = [
            Site(layer, name, 0 if name in ("head", "neuron") else None) for layer in layers if layer not in reasons and layer not in idle
        ]
        return reasons | self._try_places(name, rest)

    def _try_places(self, name: SiteName, sites: Sequence[Site]) -> dict[int, str]:
        """Ablate what these sites add (heads, neurons and the residual stream: leave it as it is), and check what is left."""
        plain = self._pass(sites, None)
        edit: _Try = ("set", 0.0) if name in ("attn", "mlp", "layer") else ("scale", 1.0)
        edited = self._pass(sites, edit)
        reasons: dict[int, str] = {}
        for site in sites:
            layer, runs = site.layer, {edited.hooks.runs[place.module] for place in self._places(site)}
            if runs != {1}:
                reasons[layer] = f"it runs {max(runs)} times a token" if max(runs) > 1 else "it does not run in every forward pass"
            elif name in ("attn", "mlp", "layer") and not self._adds_up(site, plain, edited):
                reasons[layer] = "ablating it does not leave the rest of its layer"
            if name == "neuron":
                self._hidden[layer] = plain.width_of(self._places(site)[0])
        return reasons

    def _pass(self, sites: Sequence[Site], edit: _Try | None) -> _Pass:
        """One forward pass over a few tokens, each of the sites edited or not."""
        placed = [PlacedEdit(Edit(site, *edit), self._places(site)) for site in sites] if edit else []
        running = [layer for at, layer in enumerate(self.anatomy.layers) if at not in self.anatomy.idle]
        whole = [Place(layer, side) for layer in running for side in ("input", "output")]
        parts = [place for part in (*self.anatomy.attention, *self.anatomy.mlp, *self.anatomy.other) for place in _of_part(part)]
        inputs = [Place(place.module, place.side) for site in sites for place in self._places(site) if place.columns is not None]
        decoder = Decoder(self.model)
        run = _Pass(InterventionHooks(placed, lambda: len(decoder.ids)), Reading(list(dict.fromkeys([*whole, *parts, *inputs]))))
        with quantised.without_gradients(self.model), run.reading.on(), run.hooks.on():
            decoder.prefill(sample_ids(self.model), {}, lambda _n: None)
        return run

    def _adds_up(self, site: Site, plain: _Pass, edited: _Pass) -> bool:
        """Whether the edited layer's output is its input plus what the other sub-block added, and nothing of the site."""
        layer = self.anatomy.layers[site.layer]
        came, went = edited.reading[Place(layer, "input")], edited.reading[Place(layer, "output")]
        if site.name == "layer":
            return torch.equal(came, went)
        carry = self.anatomy.carry[site.layer] if self.anatomy.carry else 1.0
        rest = self.anatomy.mlp if site.name == "attn" else self.anatomy.attention
        others = [part[site.layer] for part in (rest, self.anatomy.other) if part]
        left = went - (carry.to(came.device) if isinstance(carry, Tensor) else carry) * came
        left = left - sum(edited.reading[place] for part in others for place in _of_part(part))
        for term in (term for part in others for term in part or () if term.module is None):
            left = left - torch.as_tensor(term.coefficient, device=left.device)
        was = torch.stack([plain.reading[place] for place in self._places(site)]).sum(0)
        rounding = 2 * torch.finfo(self.model.dtype).eps * float(went.norm())
        return float(left.norm()) <= max(LEFT * float(was.norm()), rounding)


class _Pass:
    """The hooks of one forward pass."""

    def __init__(self, hooks: InterventionHooks, reading: Reading) -> None:
        self.hooks = hooks
        self.reading = reading

    def width_of(self, place: Place) -> int:
        """Columns of all that passed at the place's module."""
        return int(self.reading[Place(place.module, place.side)].shape[-1])


def _of_part(part: Part | None) -> tuple[Place, ...]:
    """The places of what a sub-block adds."""
    return tuple(Place(term.module, "output", term.coefficient) for term in part or () if term.module is not None)
