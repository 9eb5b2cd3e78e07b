"""Where a transformers model can be touched: the places of each site, tried out before anyone relies on them.

Each kind of site is tried once, when it is first asked for, in all layers at once on a few tokens: a sub-block that is taken away
must leave exactly the rest of its layer, a layer that is taken away must give what it took, and each place must be passed once a
forward pass. Where that does not hold the site is not available, and the reason says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from openmav.backends._edits import Edit, Site, need_range
from openmav.backends._hf import projections, quantised
from openmav.backends._hf.anatomy import Anatomy, Part
from openmav.backends._hf.decoding import Decoder
from openmav.backends._hf.inside import Inside
from openmav.backends._hf.touching import Hands, Place, Reading, Touch
from openmav.backends._hf.verify import sample_ids
from openmav.errors import UsageError
from openmav.interventions import SiteName

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Try: TypeAlias = tuple[Literal["set", "scale"], float]
LEFT = 1e-3  # of what a sub-block adds: what may be left of it when it is taken away
WORDS = {"head": "heads", "neuron": "neurons", "attn": "attention", "mlp": "MLP", "resid": "residual stream", "layer": "whole"}
TOLD: Mapping[SiteName, str] = {  # the site of backends._base whose reason is this one's too
    "head": "attention.probs",
    "neuron": "mlp.hidden",
    "attn": "attention.out",
    "mlp": "mlp.out",
    "resid": "residual.after",
    "layer": "residual.after",
}


class Touchable:
    """The places of a model's sites. `missing` is what the backend says that it does not have; `name` is the model's."""

    def __init__(
        self, model: PreTrainedModel, anatomy: Anatomy, inside: Inside, missing: Mapping[str, Mapping[int, str]], *, from_outputs: bool
    ) -> None:
        self.model = model
        self.anatomy = anatomy
        self.inside = inside
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
            raise UsageError(f"not available: {WORDS[site.name]} of layer {site.layer}: {why}")
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
            module = self.inside.last_linear[layer]
            assert module is not None
            return (Place(module, "input", columns=(index, index + 1)),)
        if site.name in ("attn", "mlp"):
            return _of_part(self._part(site))
        return (Place(self.anatomy.layers[layer], "output" if site.name == "resid" else "change"),)

    def _part(self, site: Site) -> Part | None:
        return (self.anatomy.attention if site.name == "attn" else self.anatomy.mlp)[site.layer]

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends._edits.Model."""
        places = {site: self.places(site) for site in sites}
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
        reasons = dict(self.missing.get(TOLD[name], {}))
        if name == "head" and not self._heads:
            self._heads = projections.find(self.model, self.anatomy, from_outputs=self.from_outputs)
            reasons = {layer: reasons.get(layer, projections.NOT_FOUND) for layer in layers if self._heads[layer] is None}
        rest = [Site(layer, name, 0 if name in ("head", "neuron") else None) for layer in layers if layer not in reasons]
        if name in ("attn", "mlp"):
            reasons |= {site.layer: "a part of it is the layer's own input" for site in rest if not _of_part(self._part(site))}
            rest = [site for site in rest if site.layer not in reasons]
        return reasons | self._try_places(name, rest)

    def _try_places(self, name: SiteName, sites: Sequence[Site]) -> dict[int, str]:
        """Take away what these sites add (heads, neurons and the residual stream: leave it as it is), and look at what is left."""
        plain = self._pass(sites, None)
        edit: _Try = ("set", 0.0) if name in ("attn", "mlp", "layer") else ("scale", 1.0)
        touched = self._pass(sites, edit)
        reasons: dict[int, str] = {}
        for site in sites:
            layer, runs = site.layer, {touched.hands.runs[place.module] for place in self._places(site)}
            if runs != {1}:
                reasons[layer] = f"it runs {max(runs)} times a token" if max(runs) > 1 else "it does not run in every forward pass"
            elif name in ("attn", "mlp", "layer") and not self._adds_up(site, plain, touched):
                reasons[layer] = "taking it away does not leave the rest of its layer"
            if name == "neuron":
                self._hidden[layer] = plain.width_of(self._places(site)[0])
        return reasons

    def _pass(self, sites: Sequence[Site], edit: _Try | None) -> _Pass:
        """One forward pass over a few tokens, each of the sites edited or not."""
        touches = [Touch(Edit(site, *edit), self._places(site)) for site in sites] if edit else []
        whole = [Place(layer, side) for layer in self.anatomy.layers for side in ("input", "output")]
        parts = [place for part in (*self.anatomy.attention, *self.anatomy.mlp) for place in _of_part(part)]
        inputs = [Place(place.module, place.side) for site in sites for place in self._places(site) if place.columns is not None]
        decoder = Decoder(self.model)
        made = _Pass(Hands(touches, lambda: len(decoder.ids)), Reading(list(dict.fromkeys([*whole, *parts, *inputs]))))
        with quantised.without_gradients(self.model), made.reading.on(), made.hands.on():
            decoder.prefill(sample_ids(self.model), {}, lambda _n: None)
        return made

    def _adds_up(self, site: Site, plain: _Pass, touched: _Pass) -> bool:
        """Whether the touched layer gave what it took and the other sub-block added, and nothing of the site."""
        layer = self.anatomy.layers[site.layer]
        came, went = touched.reading[Place(layer, "input")], touched.reading[Place(layer, "output")]
        if site.name == "layer":
            return torch.equal(came, went)
        carry = self.anatomy.carry[site.layer] if self.anatomy.carry else 1.0
        other = self.anatomy.mlp[site.layer] if site.name == "attn" else self.anatomy.attention[site.layer]
        left = went - carry * came - sum(touched.reading[place] for place in _of_part(other))
        was = torch.stack([plain.reading[place] for place in self._places(site)]).sum(0)
        rounding = 2 * torch.finfo(self.model.dtype).eps * float(went.norm())
        return float(left.norm()) <= max(LEFT * float(was.norm()), rounding)


class _Pass:
    """The hooks of one forward pass."""

    def __init__(self, hands: Hands, reading: Reading) -> None:
        self.hands = hands
        self.reading = reading

    def width_of(self, place: Place) -> int:
        """Columns of all that passed at the place's module."""
        return int(self.reading[Place(place.module, place.side)].shape[-1])


def _of_part(part: Part | None) -> tuple[Place, ...]:
    """The places of what a sub-block adds; none where one of its terms is no module's output."""
    if part is None or any(term.module is None for term in part):
        return ()
    return tuple(Place(term.module, "output", term.coefficient) for term in part if term.module is not None)
