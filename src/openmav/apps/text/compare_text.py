"""A comparison as text: both runs, a row for each token as it comes, the layers on average, and where they part."""

from __future__ import annotations

import math
from collections.abc import Callable

from openmav.analysis.compare import ComparedToken, Lockstep, Parting, Totals
from openmav.generation.comparison import ROUNDINGS, SITES
from openmav.paint.text import fit, visible
from openmav.record import Step

TOKEN, TOP = 14, 18  # cells of a token, and of the most likely one with its probability
COLUMNS = f"{'':>4}  {'token':<{TOKEN}}  {'KL nats':>8}    {'most likely in A':<{TOP}}  {'in B':<{TOP}}  parts at"


class TextComparison:
    """Lines for a person; `write` gets each whole."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._pair: Lockstep | None = None

    def begin(self, pair: Lockstep) -> None:
        self._pair = pair
        for name, session in (("A", pair.a), ("B", pair.b)):
            info = session.info
            self._write(f"{name}  {info.name} · {info.backend} · {info.dtype} on {info.device} · {info.layers} layers")
            if session.interventions:
                self._write(f"   {', '.join(session.interventions)}")
        if pair.a.prompt != pair.b.prompt:
            for name, session in (("A", pair.a), ("B", pair.b)):
                self._write(f"prompt of {name}: {session.prompt.text!r}, {len(session.prompt.token_ids)} tokens")
        if pair.why_no_layers:
            self._write(f"layers: none: the models have {pair.why_no_layers}")
        else:
            whose = "as asked" if pair.given else f"{ROUNDINGS} roundings of {pair.coarser}"
            self._write(f"they part where a layer differs by more than {pair.threshold:.2g} of A's residual stream ({whose})")
        self._write("")
        self._write(COLUMNS)

    def add(self, one: ComparedToken) -> None:
        flip = "≠" if one.flips else " "
        token = fit(visible(one.a.token), TOKEN)
        where = "" if one.parting is None else f"L{one.parting.layer} {one.parting.part}"
        self._write(f"{one.a.index:>4}  {token}  {_nats(one.kl)}  {flip} {_top(one.a)}  {_top(one.b)}  {where}".rstrip())

    def end(self, reason: str, totals: Totals, within: bool | None) -> None:
        self._layers(totals)
        self._write("")
        if totals.tokens:
            largest = "" if totals.kl_max_token is None else f", largest {_nats(totals.kl_max).strip()} at token {totals.kl_max_token}"
            flips = len(totals.flips)
            first = f", the first at token {totals.flips[0]}" if flips else ""
            self._write(f"{_count(totals.tokens, 'token')} · KL(A‖B) {_nats(totals.kl_mean).strip()} nats on average{largest}")
            self._write(f"{_count(flips, 'flip')} of the most likely token{first} · {self._first(totals.first)}")
        if within is not None:
            self._write("within --max-kl" if within else "above --max-kl")
        if reason == "interrupt":
            self._write("interrupted")

    def _layers(self, totals: Totals) -> None:
        """A row a layer: the means over all tokens."""
        if not len(totals.mean("residual", "difference")):
            return
        self._write("")
        self._write("‖A−B‖₂ and the cosine of A and B, by layer, on average")
        self._write("layer" + "".join(f"  {part:>11}  {'cosine':>9}" for part in SITES))
        columns = [(totals.mean(part, "difference"), totals.mean(part, "cosine")) for part in SITES]
        for layer in range(len(columns[0][0])):
            cells = "".join(f"  {_number(norms[layer], '>11.4g')}  {_number(cosines[layer], '>9.6f')}" for norms, cosines in columns)
            self._write(f"{layer:>5}{cells}")

    def _first(self, first: Parting | None) -> str:
        if self._pair is not None and self._pair.why_no_layers:
            return "layers were not compared"
        if first is None:
            return "they part nowhere"
        return f"they part first at token {first.token}, layer {first.layer}, {first.part} (by {first.share:.2g})"


def _top(step: Step) -> str:
    token, prob = visible(step.candidates.tokens[0]), 100 * float(step.candidates.probs[0])
    return f"{fit(token, TOP - 6)}{prob:>4.0f} %" if math.isfinite(prob) else fit(token, TOP)


def _nats(value: float) -> str:
    return f"{value:>8.2e}" if math.isfinite(value) else f"{value:>8}"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else format("none", form.split(".")[0])


def _count(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
