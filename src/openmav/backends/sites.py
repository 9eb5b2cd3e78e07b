"""The vocabulary of sites, for measures and backends: what can be captured and changed in a layer, and one such place in a model.

What leads from the residual stream to logits is no site but a Frame's `head`; a measure names what it needs of it, so that a reason
can be given where it is missing:

    head.logits       Head.logits: the logits of any residual stream
    head.direction    Head.directions explains some of them as linear functions
    head.neurons      Head.neuron_tokens: what a neuron of the layer adds to them
"""

from __future__ import annotations

from dataclasses import dataclass

from openmav.settings.interventions import Intervention
from openmav.settings.sites import EDITABLE, ROW_SITES, SITE_KINDS, SITES, SiteKind, SiteName, spelled

__all__ = ["EDITABLE", "HEAD_SITES", "ROW_SITES", "SITES", "SITE_KINDS", "Site", "SiteKind", "SiteName", "site_of", "spelled"]
HEAD_SITES = frozenset({"head.logits", "head.direction", "head.neurons"})


@dataclass(frozen=True)
class Site:
    """One place in a model, with a value for each token: what a head, a sub-block, a layer adds; a neuron; the residual stream."""

    layer: int
    name: SiteName
    index: int | None = None

    def __str__(self) -> str:
        return spelled(self.name, self.layer, self.index)


def site_of(intervention: Intervention) -> Site:
    """The place that an intervention changes."""
    return Site(intervention.layer, intervention.site, intervention.index)
