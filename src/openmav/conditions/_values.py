"""What the names of the language stand for at one moment of a run. None is "unknown": what a layer, or this step, does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.record import ModelInfo, Step
from openmav.record.nonfinite import nonfinite, wrong

Value: TypeAlias = float | str | bool | None
Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """A step, the model that made it, and the steps before it (all of the run's steps may be given)."""

    step: Step
    info: ModelInfo | None
    steps: Sequence[Step] = ()

    def previous(self) -> Moment | None:
        """The moment one token earlier."""
        at = self.step.index - 1
        return replace(self, step=self.steps[at]) if 0 <= at < len(self.steps) else None

    def untouched(self) -> Moment | None:
        """What the model says without the interventions, at the same place."""
        step, before = self.step, self.step.before
        if before is None:
            return None
        baseline = replace(step, candidates=before.candidates, entropy=before.entropy, logprob=before.logprob)
        return replace(self, step=replace(baseline, values=before.values, pieces=before.pieces, rank=-1, before=None))

    def row(self, text: str | None) -> int | None:
        """The row of the candidates with this text, or with this text after a space, the most likely; without a text the chosen token's."""
        candidates = self.step.candidates
        if text is None:
            result = np.flatnonzero(candidates.token_ids == self.step.token_id)
            return int(result[0]) if len(result) else None
        return next((row for row, token in enumerate(candidates.tokens) if token in (text, f" {text}")), None)

    def cells(self, array: str, places: Sequence[int]) -> Numbers:
        """The numbers of an array below these indices, one after the other; those that are not there left out."""
        values, nothing = self.step.values.get(array), np.empty(0)
        if values is None or len(places) > values.ndim:
            return nothing
        if any(not -length <= place < length for place, length in zip(places, values.shape)):
            return nothing
        there = values >= 0 if values.dtype.kind in "iu" else ~np.isnan(values) | wrong(self.step, array, self.info)
        part, kept = values[tuple(places)], there[tuple(places)]
        numbers: Numbers = np.asarray(part, dtype=np.float64)[kept].ravel()
        return numbers


# ---- what a step says of its token -----------------------------------------------------------------------------------------


def _of_text(moment: Moment) -> Value:
    at = moment.step.index
    return "".join(step.text for step in moment.steps[:at]) + moment.step.text if at <= len(moment.steps) else None


def _touched(moment: Moment) -> Value:
    return bool(moment.step.interventions)


def _nan(moment: Moment) -> Value:
    return bool(nonfinite(moment.step, moment.info))


PLAIN: dict[str, tuple[str, Callable[[Moment], Value], str]] = {
    "entropy": ("number", lambda m: m.step.entropy, "of the raw next-token distribution, nats"),
    "token": ("text", lambda m: m.step.token, "the chosen token's text, on its own"),
    "text": ("text", _of_text, "all generated text so far, this token included"),
    "token_id": ("number", lambda m: float(m.step.token_id), "the chosen token's id"),
    "index": ("number", lambda m: float(m.step.index), "of the token: 0 is the first generated one"),
    "position": ("number", lambda m: float(m.step.position), "of the token in the whole sequence, prompt included"),
    "special": ("truth", lambda m: m.step.special, "whether it is a special token, for example the end of the text"),
    "forced": ("truth", lambda m: m.step.forced, "whether you inserted it"),
    "nan": ("truth", _nan, "whether the logits or a measure hold a NaN or infinity of the model's own"),
    "touched": ("truth", _touched, "whether interventions are active"),
    "temperature": ("number", lambda m: m.step.sampling.temperature, "of the sampling; 0 is greedy"),
    "top_k": ("number", lambda m: float(m.step.sampling.top_k), "of the sampling; 0 is off"),
    "top_p": ("number", lambda m: m.step.sampling.top_p, "of the sampling; 1 is off"),
    "min_p": ("number", lambda m: m.step.sampling.min_p, "of the sampling; 0 is off"),
    "repetition_penalty": ("number", lambda m: m.step.sampling.repetition_penalty, "of the sampling; 1 is off"),
    "seed": ("number", lambda m: float(m.step.sampling.seed), "of the sampling"),
}


# ---- what the candidates say of a token --------------------------------------------------------------------------------------


def _logprob(moment: Moment, row: int) -> float:
    """ln p of a candidate: that of the chosen one, and the distance of their logits; so it holds where p is too small for a number."""
    chosen, logits = moment.row(None), moment.step.candidates.logits
    if chosen is None or row == chosen:
        return moment.step.logprob if row == chosen else _ln(float(moment.step.candidates.probs[row]))
    return float(logits[row]) - float(logits[chosen]) + moment.step.logprob


def _ln(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf if p == 0 else math.nan


def _rank(moment: Moment, row: int) -> float | None:
    """How many tokens have a larger logit. Only the step knows it of the chosen token, and not in the baseline of a modified one."""
    known, logits = moment.step.rank, moment.step.candidates.logits
    if known < 0:
        return None
    return float(known if row == moment.row(None) else (logits > logits[row]).sum())


CANDIDATE: dict[str, tuple[Callable[[Moment, int], float | None], str]] = {
    "prob": (lambda m, row: float(m.step.candidates.probs[row]), "raw probability, 0..1"),
    "logprob": (_logprob, "natural logarithm of the raw probability, nats"),
    "surprisal": (lambda m, row: -_logprob(m, row), "-ln of the raw probability, nats"),
    "sampled_prob": (
        lambda m, row: float(m.step.candidates.sampled_probs[row]),
        "probability after sampling's filters",
    ),
    "logit": (lambda m, row: float(m.step.candidates.logits[row]), "the model's own, before any sampling"),
    "rank": (_rank, "how many tokens have a larger raw logit; 0 is the most likely (top-1)"),
}


# ---- what is measured in the layers -------------------------------------------------------------------------------------------

LAYER, HEAD, PLACE, ONE = "layer", "head", "place", "one"  # axes; an axis "one" is of length 1 and may be left out
AXES: dict[str, tuple[str, ...]] = {
    "mlp_norm": (LAYER,),
    "attention_norm": (LAYER,),
    "residual_norm": (LAYER,),
    "attention_entropy": (LAYER, HEAD),
    "relative_attention_entropy": (LAYER, HEAD),
    "sink_share": (LAYER, HEAD),
    "sink_share.learned": (LAYER, HEAD),
    "attention_rows": (LAYER, HEAD, PLACE),
    "logit_lens": (LAYER, PLACE),
    "logit_lens.logits": (LAYER, PLACE),
    "logit_lens.token_ids": (LAYER, PLACE),
    "logit_lens.chosen": (LAYER,),
    "neurons": (LAYER, PLACE),
    "neurons.ids": (LAYER, PLACE),
    "router": (LAYER, PLACE),
    "router.ids": (LAYER, PLACE),
    "attribution": (LAYER, PLACE),
    "attribution.embedding": (ONE,),
    "attribution.other": (ONE,),
    "attribution.bias": (ONE,),
    "attribution.logit": (ONE,),
    "attribution.rest": (ONE,),
    "attribution.top": (LAYER, PLACE, PLACE),
    "attribution.top.token_ids": (PLACE,),
    **{f"attribution.top.{part}": (PLACE, PLACE) for part in ("embedding", "other", "bias", "logit", "rest")},
    "neuron_tokens": (PLACE,) * 4,
    "neuron_tokens.token_ids": (PLACE,) * 4,
    "neuron_tokens.layers": (PLACE,),
    "distribution": (PLACE, PLACE),
    "sampling_stages": (PLACE, PLACE),
    "sampling_stages.settings": (PLACE,),
    "cache_size": (ONE,),
}
NORMS = {"mlp": "mlp_norm", "attention": "attention_norm", "residual": "residual_norm"}
# name: the array that it reads, how many of its axes one may name, the indices that come after those that are named
LAYERED: dict[str, tuple[str, int, tuple[int, ...], str]] = {
    "norm": ("", 1, (), "norm(mlp, 3): length of what the MLP adds; also norm(attention, 3), and norm(residual, 3) of the residual stream"),
    "attention_entropy": ("attention_entropy", 2, (), "attention_entropy(3, 2) of a head, attention_entropy(3) the mean over heads, nats"),
    "sink": (
        "sink_share",
        2,
        (),
        "sink(3, 2) of a head, sink(3) the mean: attention on the first token or a learned sink, 0..1",
    ),
    "lens_prob": ("logit_lens", 1, (0,), "lens_prob[3]: the probability of the token that layer 3 predicts, 0..1"),
}
MEANS = frozenset({"attention_entropy", "relative_attention_entropy", "sink_share", "sink_share.learned"})  # of a layer: mean over heads
LENS = "lens"


def lens_text(moment: Moment, layer: int) -> Value:
    """The text of the token that a layer predicts."""
    result = moment.cells("logit_lens.token_ids", (layer, 0))
    return moment.step.pieces.get(int(result[0])) if len(result) else None


# ---- functions of numbers -----------------------------------------------------------------------------------------------------

REDUCE: dict[str, tuple[Callable[[Numbers], np.floating], str]] = {
    "max": (np.max, "the largest: of several numbers, or over all layers and heads, such as max(norm(mlp))"),
    "min": (np.min, "the smallest"),
    "mean": (np.mean, "the mean"),
    "abs": (lambda numbers: np.abs(numbers)[0], "a number without its sign"),
}
ELSEWHERE: dict[str, tuple[Callable[[Moment], Moment | None], str]] = {
    "previous": (Moment.previous, "what is inside, one token earlier, such as previous(entropy); unknown at the first token"),
    "untouched": (Moment.untouched, "what is inside, by the model without interventions; unknown where there are none"),
}
