"""Interventions: what is changed inside a model while it runs, as one line of text each.

    ablate SITE[@POSITIONS][=zero|=mean]     a site's value becomes 0, or its mean over the prompt
    amplify SITE[@POSITIONS]=FACTOR          a site's value is multiplied
    steer L8[@POSITIONS]=VECTOR[*FACTOR]     a vector is added to the residual stream after a layer
    patch SITE[@POSITIONS]=TEXT              a site takes its value from a run of another text, at the same position

SITE: L5.H3 (a head), L5.attn, L5.mlp, L5.N120 (a neuron of the MLP), L5 (what the whole layer adds); to patch, also L5.resid (the
residual stream after the layer). Layers, heads and neurons count from 0.
POSITIONS: 5, 2-7 (both ends included), -1 (the last token of the prompt); without them all positions.
VECTOR: a .npy or .safetensors file, file.safetensors:name where it holds several, or "one text"-"another": the residual
stream after the layer at the last token of the first text, minus the same of the second.

A spec is only parsed here: the backend checks whether its layers and files exist.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias, cast

from openmav.errors import UsageError
from openmav.settings.sites import EDITABLE, SiteName, spelled

Kind: TypeAlias = Literal["ablate", "amplify", "steer", "patch"]
How: TypeAlias = Literal["zero", "mean"]
KINDS: tuple[Kind, ...] = ("ablate", "amplify", "steer", "patch")
_SITES = "L5 (a layer), L5.H3 (a head), L5.attn, L5.mlp, L5.N120 (a neuron)"
_POSITIONS = "5, 2-7, or -1 for the last token of the prompt"


@dataclass(frozen=True)
class Intervention:
    """One intervention. `str` returns a spec that parses to the same intervention.

    `positions` are the first and the last one, both included; a single one counts from the end of the prompt where it is negative;
    None: all. `source` holds the text of a patch, the file of a steering vector, or the two texts whose difference it is.
    """

    kind: Kind
    layer: int
    site: SiteName
    index: int | None = None  # of the head or neuron
    positions: tuple[int, int] | None = None
    factor: float = 1.0
    how: How = "zero"
    source: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The site as it is written: "L5.H3"."""
        return f"L{self.layer}" if self.kind == "steer" else spelled(self.site, self.layer, self.index)

    def __str__(self) -> str:
        value = {
            "ablate": "=mean" if self.how == "mean" else "",
            "amplify": f"={_plain(self.factor)}",
            "steer": f"={_vector(self.source)}" + (f"*{_plain(self.factor)}" if self.factor != 1 else ""),
            "patch": "=" + "".join(self.source),
        }
        return f"{self.kind} {self.place}{_at(self.positions)}{value[self.kind]}"


def parse(spec: str) -> Intervention:
    """The intervention of a spec. Raises UsageError with one line: the position of the error, and what is allowed there."""
    reader = _Reader(spec)
    reader.skip(r"\s*")
    kind = cast(Kind, reader.take("|".join(KINDS), f"an intervention begins with {', '.join(KINDS[:-1])} or {KINDS[-1]}"))
    reader.take(r"\s+", f"a site follows, such as {_SITES}")
    layer, site, index = _site(reader, kind)
    positions = _positions(reader)
    how: How = "zero"
    factor, source = 1.0, tuple[str, ...]()
    if kind == "ablate":
        how = _how(reader)
    elif kind == "amplify":
        reader.take("=", "=FACTOR follows, such as =0.5")
        factor = _number(reader)
    elif kind == "steer":
        reader.take("=", '=VECTOR follows, such as =vector.npy*4 or ="one text"-"another"*4')
        source = _texts(reader) if reader.rest.startswith('"') else _file(reader)
        factor = _number(reader) if reader.skip(r"\*") else 1.0
    else:
        reader.take("=", "=TEXT follows, the text to take the value from")
        source = (reader.take(r"(?s).+", "the text to take the value from is empty"),)
    reader.end()
    return Intervention(kind, layer, site, index, positions, factor, how, source)


class _Reader:
    """A spec, and the position up to which it has been parsed."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.at = 0

    @property
    def rest(self) -> str:
        return self.spec[self.at :]

    def skip(self, pattern: str) -> str:
        """Consume what matches here; "" where nothing does."""
        match = re.compile(pattern).match(self.spec, self.at)
        if not match:
            return ""
        self.at = match.end()
        return match[0]

    def take(self, pattern: str, otherwise: str) -> str:
        """Consume what must match here. Raises UsageError."""
        return self.skip(pattern) or self.fail(otherwise)

    def end(self) -> None:
        self.skip(r"\s*")
        if self.rest:
            self.fail("nothing more is known here")

    def fail(self, why: str) -> NoReturn:
        here = f"'{self.rest[:16]}'" if self.rest else "the end"
        raise UsageError(f"cannot read the intervention '{self.spec}' at column {self.at + 1}, {here}: {why}")


def _site(reader: _Reader, kind: Kind) -> tuple[int, SiteName, int | None]:
    """(layer, site, index)."""
    reader.take("L", f"a layer is written L and its number; known: {_SITES}")
    layer = int(reader.take(r"[0-9]{1,9}", "the number of a layer follows, counted from 0"))
    if kind == "steer" or not reader.skip(r"\."):
        if kind == "patch":
            reader.fail("say what of the layer: .resid, .attn, .mlp, .H3 (a head) or .N120 (a neuron)")
        return layer, "resid" if kind == "steer" else "layer", None
    known = "H3 (a head), N120 (a neuron), attn, mlp" + (", resid" if kind == "patch" else "")
    kinds = {one.written: one for one in EDITABLE.values() if one.written and (kind == "patch" or not one.patch_only)}
    written = reader.take("|".join(one.written + r"(?=[0-9])" * one.indexed for one in kinds.values()), f"known: {known}")
    site = cast(SiteName, kinds[written].edits)
    return layer, site, int(reader.take(r"[0-9]{1,9}", "a shorter number")) if kinds[written].indexed else None


def _positions(reader: _Reader) -> tuple[int, int] | None:
    if not reader.skip("@"):
        return None
    began = reader.at
    first = int(reader.take(r"-?[0-9]{1,9}", f"a position follows: {_POSITIONS}"))
    if first < 0 or not reader.skip("-"):
        return first, first
    last = int(reader.take(r"[0-9]{1,9}", f"the last position follows; known: {_POSITIONS}"))
    if last < first:
        reader.at = began
        reader.fail("the last position comes before the first")
    return first, last


def _how(reader: _Reader) -> How:
    if not reader.skip("="):
        if reader.rest.strip():
            reader.fail("known here: @POSITIONS, =zero, =mean")
        return "zero"
    return cast(How, reader.take(r"zero|mean", "known: zero, mean"))


def _number(reader: _Reader) -> float:
    began = reader.at
    number = float(reader.take(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", "a number follows, such as 0.5 or -4"))
    if not math.isfinite(number):
        reader.at = began
        reader.fail("the number is too large")
    return number


def _file(reader: _Reader) -> tuple[str]:
    """The name of a file, with the name of an entry in it; a last "*" begins the factor."""
    name = r"(?i)[^\s].*?(\.npy|\.safetensors(:[^*]*[^*\s])?)(?=\s*(\*[^*]*)?$)"
    return (reader.take(name, 'known: FILE.npy, FILE.safetensors, FILE.safetensors:NAME, "one text"-"another"; then *FACTOR or nothing'),)


def _texts(reader: _Reader) -> tuple[str, str]:
    """Two texts in double quotes; in them \\" is a quote and \\\\ a backslash."""
    quoted = r'"(?:[^"\\]|\\.)*"'
    first = reader.take(quoted, 'the text does not end; close it with "')
    reader.take("-", '- and the text to subtract follow, such as "I love it"-"I hate it"')
    second = reader.take(quoted, "the text to subtract follows, in double quotes")
    for text in (first, second):
        if len(text) == len('""'):
            reader.fail("a text of the difference is empty")
    return _unquoted(first), _unquoted(second)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _vector(source: tuple[str, ...]) -> str:
    if len(source) == 1:
        return source[0]
    return "-".join('"' + re.sub(r'(["\\])', r"\\\1", text) + '"' for text in source)


def _at(positions: tuple[int, int] | None) -> str:
    if positions is None:
        return ""
    first, last = positions
    return f"@{first}" if first == last else f"@{first}-{last}"


def _plain(factor: float) -> str:
    """The shortest text that parses to the same number."""
    factor = float(factor)
    return repr(int(factor)) if factor.is_integer() and abs(factor) < 1e15 else repr(factor)
