"""An intervention as the fields of a form: which there are for a kind, the text that they make, and what is wrong with each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from openmav.errors import UsageError
from openmav.settings.interventions import KINDS, parse
from openmav.settings.sites import EDITABLE, SiteName
from openmav.view import View

ABOUT = {
    "ablate": "a part adds nothing, or its mean",
    "amplify": "what a part adds, multiplied",
    "steer": "adds a vector after a layer",
    "patch": "a part's value from another text",
}
PARTS = {"head": "head", "attn": "attention", "mlp": "MLP", "neuron": "neuron", "layer": "whole layer", "resid": "residual stream"}
HOWS = {"zero": "zero", "mean": "mean over the prompt"}
LABELS = {"kind": "what", "layer": "layer", "part": "part", "index": "number", "how": "value", "factor": "factor"}
LABELS |= {"vector": "vector", "text": "text", "positions": "positions"}
CHOICES: dict[str, Mapping[str, str]] = {"kind": {kind: kind for kind in KINDS}, "part": PARTS, "how": HOWS}


@dataclass(frozen=True)
class Fields:
    """What stands in each field, as it was typed."""

    kind: str = "ablate"
    layer: str = "0"
    part: str = "head"
    index: str = "0"  # of a head or neuron
    how: str = "zero"
    factor: str = "2"
    vector: str = '"love"-"hate"'
    text: str = ""
    positions: str = ""  # "" for all

    @property
    def shown(self) -> tuple[str, ...]:
        """The fields that this kind and part have."""
        part = () if self.kind == "steer" else ("part",)
        index = ("index",) if part and self._indexed else ()
        own = {"ablate": ("how",), "amplify": ("factor",), "steer": ("vector", "factor"), "patch": ("text",)}
        return ("kind", "layer", *part, *index, *own[self.kind], "positions")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that this kind can change."""
        return tuple(name for name in PARTS if name != ("layer" if self.kind == "patch" else "resid"))

    @property
    def _indexed(self) -> bool:
        return EDITABLE[cast(SiteName, self.part)].indexed

    @property
    def spec(self) -> str:
        """The intervention that they say, as settings.interventions.parse reads it where nothing is wrong."""
        place = f"L{self.layer.strip()}"
        if self.kind != "steer" and self.part != "layer":
            place += f".{EDITABLE[cast(SiteName, self.part)].written}{self.index.strip() if self._indexed else ''}"
        at = f"@{self.positions.strip()}" if self.positions.strip() else ""
        factor = f"*{self.factor.strip()}" if self.factor.strip() != "1" else ""
        value = {
            "ablate": "=mean" if self.how == "mean" else "",
            "amplify": f"={self.factor.strip()}",
            "steer": f"={self.vector.strip()}{factor}",
            "patch": f"={self.text}",
        }
        return f"{self.kind} {place}{at}{value[self.kind]}"

    def with_(self, name: str, value: str) -> Fields:
        """Another value of a field; the part too where the kind can't change that one."""
        changed = replace(self, **{name: value})
        return changed if changed.part in changed.parts or changed.kind == "steer" else replace(changed, part=changed.parts[0])

    def read(self, spec: str) -> Fields:
        """The fields of this intervention; what it has none of, and all where it can't be read, as before."""
        try:
            one = parse(spec)
        except UsageError:
            return self
        first, last = one.positions or (0, 0)
        known: dict[str, str] = {"kind": one.kind, "layer": str(one.layer)}
        known["positions"] = "" if one.positions is None else str(first) if first == last else f"{first}-{last}"
        if one.kind != "steer":
            known["part"] = one.site
        if one.index is not None:
            known["index"] = str(one.index)
        if one.kind == "ablate":
            known["how"] = one.how
        elif one.kind == "patch":
            known["text"] = one.source[0]
        else:
            known["factor"] = f"{one.factor:.15g}"
        if one.kind == "steer":
            known["vector"] = str(replace(one, factor=1.0, positions=None)).partition("=")[2]
        return replace(self, **known)

    def notes(self, view: View) -> dict[str, tuple[str, bool]]:
        """{field: (what belongs there, or what is wrong with it, whether that is wrong)} of the fields that are shown."""
        positions = self.positions.strip()
        number = {"head": _whole(self.index, view.heads - 1, "head"), "neuron": _whole(self.index, None, "neuron")}
        every = {
            "kind": (ABOUT[self.kind], False),
            "layer": _whole(self.layer, view.layers - 1, "layer"),
            "index": number.get(self.part, ("", False)),
            "factor": _number(self.factor),
            "positions": _read(f"ablate L0@{positions}" if positions else "", "5, 2-7, -1; empty: all", "5, 2-7 or -1"),
            "vector": _read(f"steer L0={self.vector.strip()}", "", '"a"-"b", or a file'),
            "text": ("", False) if self.text else ("a text to take it from", True),
        }
        return {name: every.get(name, ("", False)) for name in self.shown}


def fields_of(view: View) -> Fields:
    """The fields to begin with: the selected layer and head."""
    return Fields(layer=str(max(view.layer, 0)), part="head" if view.heads else "mlp", index=str(view.head))


def _whole(text: str, last: int | None, what: str) -> tuple[str, bool]:
    known = f"0 to {last}" if last is not None else "from 0 on"
    if not text.strip().isascii() or not text.strip().isdigit():
        return f"a whole number, {known}", True
    outside = last is not None and int(text) > last
    return (f"no {what} {int(text)}: {known}", True) if outside else (known, False)


def _number(text: str) -> tuple[str, bool]:
    try:
        good = math.isfinite(float(text))
    except ValueError:
        good = False
    return ("", False) if good else ("a number, such as 0.5", True)


def _read(spec: str, hint: str, known: str) -> tuple[str, bool]:
    try:
        parse(spec or "ablate L0")
    except UsageError:
        return known, True
    return hint, False
