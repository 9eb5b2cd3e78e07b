"""The sites of a model: one table of what can be captured in a layer, and of what an intervention can change there.

A measure NEEDS sites by `name`, a Frame holds them under it, interventions write them as `L5.` and `written`. backends.sites is the
public door for plug-ins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SiteName: TypeAlias = Literal["head", "attn", "mlp", "resid", "layer", "neuron"]
Swept: TypeAlias = Literal["heads", "attn", "mlp", "layers"]  # what a sweep ablates one after another
SWEPT_NAMES: dict[Swept, str] = {"heads": "heads", "attn": "attention blocks", "mlp": "MLPs", "layers": "layers"}


@dataclass(frozen=True)
class SiteKind:
    """One kind of site; a layer has one value of it at each position.

    `name` is that of the captured value, "" where none is. `edits` is what an intervention changes there, None where it can change
    nothing; `depends_on` names the captured value whose reason explains why a layer has no such site.
    """

    name: str
    shape: str = ""
    holds: str = ""
    edits: SiteName | None = None
    written: str = ""  # after "L5."; an indexed one is followed by its number
    indexed: bool = False
    patch_only: bool = False  # to ablate or amplify the residual stream itself would leave nothing of the layers before
    words: str = ""  # in a message
    depends_on: str = ""


SITE_KINDS = (
    SiteKind("residual.before", "[width]", "the residual stream before the layer"),
    SiteKind(
        "residual.after",
        "[width]",
        "the residual stream after the layer, before the final norm",
        edits="resid",
        written="resid",
        patch_only=True,
        words="residual stream",
        depends_on="residual.after",
    ),
    SiteKind(
        "attention.out",
        "[width]",
        "what the attention sub-block adds to the residual stream",
        edits="attn",
        written="attn",
        words="attention",
        depends_on="attention.out",
    ),
    SiteKind(
        "mlp.out",
        "[width]",
        "what the MLP sub-block adds to the residual stream",
        edits="mlp",
        written="mlp",
        words="MLP",
        depends_on="mlp.out",
    ),
    SiteKind("other.out", "[width]", "what the layer adds beside those two, for example a per-layer input; most models have none"),
    SiteKind("attention.probs", "[heads, keys]", "the attention row of the last query, fp32; its last keys are the newest tokens"),
    SiteKind(
        "attention.scores",
        "[heads, keys]",
        "the scores that softmax turned into that row (after scale, cap and mask), fp32; None where only the row is known",
    ),
    SiteKind(
        "mlp.hidden",
        "[hidden]",
        "the input of the last linear map of the MLP: its neurons after the activation",
        edits="neuron",
        written="N",
        indexed=True,
        words="neurons",
        depends_on="mlp.hidden",
    ),
    SiteKind("router.experts", "[k]", "the experts that the router of a mixture-of-experts layer selected, int64"),
    SiteKind("router.weights", "[k]", "the weights that their outputs get"),
    SiteKind("", holds="what a head adds", edits="head", written="H", indexed=True, words="heads", depends_on="attention.probs"),
    SiteKind("", holds="what the whole layer adds", edits="layer", words="whole", depends_on="residual.after"),
)
SITES = frozenset(kind.name for kind in SITE_KINDS if kind.name)
ROW_SITES = frozenset({"attention.probs", "attention.scores"})
EDITABLE: dict[SiteName, SiteKind] = {kind.edits: kind for kind in SITE_KINDS if kind.edits is not None}


def spelled(site: SiteName, layer: int, index: int | None = None) -> str:
    """As an intervention writes it: "L5.H3", "L5.mlp", "L5" for the whole layer."""
    kind = EDITABLE[site]
    number = str(index) if kind.indexed else ""
    return f"L{layer}" + (f".{kind.written}{number}" if kind.written else "")
