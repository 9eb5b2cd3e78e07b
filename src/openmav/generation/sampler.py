"""Choosing the next token: transformers' own logits processors in its order, a private generator, and the numbers to show.

The raw logits are never changed; what sampling does to them is kept beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from openmav.measures.base import SamplingStage
from openmav.record import RANK_EDGES, Array, Ids
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

SMALL = 8192  # logits; of more, the ids are found faster by the value of the last of them, of fewer in one call
GROUPS = 4  # times as many groups as ids: few of the largest stand in one group
LEAST = np.float32(-200.0)  # stands for the logarithm of a weight that is 0, -inf as it may be, so that 0 ln 0 = 0


@dataclass(frozen=True)
class DrawnToken:
    """A chosen token, and what of its distribution was needed to choose it.

    `sampled_probs` [vocab] is as in Choice; when greedy the most likely token, all of that distribution.
    """

    token_id: int
    sampled_probs: Tensor | int
    stages: tuple[SamplingStage, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A chosen token and the distribution that it came from; tensors are fp32 on the CPU."""

    token_id: int
    logprob: float  # raw, natural log
    entropy: float  # of the raw distribution, nats
    probs: Tensor  # [vocab] raw
    sampled_probs: Tensor  # [vocab] after the chain; one-hot when greedy
    top_ids: Tensor  # [n] the most likely by raw logits, in order
    stages: tuple[SamplingStage, ...] = ()  # what each stage of the chain left, in their order; stages that are off are not there
    rank: int = -1  # how many tokens have a larger raw logit; -1 where the logits are NaN


class Sampler:
    """Draws one token after another; the state of its generator can be read and put back, so that a step can be undone.

    `build` makes the logits processors for a sampling; None from it: nothing is to be done.
    """

    def __init__(self, sampling: Sampling, build: Callable[[Sampling], LogitsProcessorList | None] | None = None) -> None:
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._state: Tensor | None = None  # of the generator, since the last draw
        self._build = build or build_chain
        self.use(sampling)

    def use(self, sampling: Sampling) -> None:
        """Choose like this from now on; the stream of random numbers goes on."""
        self.chain = self._build(sampling)
        self.sampling = sampling

    def with_(self, sampling: Sampling) -> Sampler:
        """This one where it chooses like this, else another with a stream of its own."""
        return self if sampling == self.sampling else Sampler(sampling, self._build)

    @property
    def state(self) -> Tensor:
        """Of the generator; one and the same object until something is drawn."""
        if self._state is None:
            self._state = self._generator.get_state()
        return self._state

    @state.setter
    def state(self, state: Tensor) -> None:
        self._generator.set_state(state)
        self._state = state

    def restart(self) -> None:
        """The stream of random numbers from its beginning."""
        self._generator.manual_seed(self.sampling.seed)
        self._state = None

    def choose(self, logits: Tensor, ids: Sequence[int], forced: int | None = None, allowed: Tensor | None = None) -> Choice:
        """[vocab] fp32 and the tokens so far -> a Choice. A forced token is not drawn and leaves the generator alone.

        `allowed` [vocab] bool: what a constraint leaves, before all else; None: everything.
        """
        return self.describe(logits, self.draw(logits, ids, forced, allowed))

    def draw(self, logits: Tensor, ids: Sequence[int], forced: int | None = None, allowed: Tensor | None = None) -> DrawnToken:
        """The token of `choose` alone; what it came from can be described later."""
        stages = self._through_the_chain(logits, ids, allowed) if self.chain or allowed is not None else ()
        scores = stages[-1].scores if stages else logits
        if self.sampling.greedy:
            largest = int(scores.numpy().argmax())
            return DrawnToken(largest if forced is None else forced, largest, stages)
        sampled_probs = torch.softmax(scores, dim=-1)
        return DrawnToken(self._draw(sampled_probs) if forced is None else forced, sampled_probs, stages)

    @staticmethod
    def describe(logits: Tensor, drawn: DrawnToken) -> Choice:
        """The distribution that a token was drawn from, [vocab] fp32."""
        scores, token, sampled_probs = logits.numpy(), drawn.token_id, drawn.sampled_probs
        top = most_likely(scores, RANK_EDGES[-1])
        leads = len(top) > 1 and bool(scores[top[0]] > scores[top[1]])
        if isinstance(sampled_probs, int):
            sampled = np.zeros(len(scores), dtype=np.float32)
            sampled[sampled_probs] = 1.0
            sampled_probs = torch.from_numpy(sampled)
        probs, logprob, entropy = distribution(scores, token, float(scores[top[0]]))
        place = 0 if leads and token == top[0] else rank(scores, token)
        return Choice(token, logprob, entropy, torch.from_numpy(probs), sampled_probs, torch.from_numpy(top), drawn.stages, place)

    @torch.inference_mode()
    def _through_the_chain(self, logits: Tensor, ids: Sequence[int], allowed: Tensor | None) -> tuple[SamplingStage, ...]:
        """What each stage that is on makes of [vocab] scores, one after the other.

        A constraint wins over the model's own settings: a stage that would leave no token of those allowed is left out.
        """
        result = [] if allowed is None else [SamplingStage("constraint", logits.masked_fill(~allowed, float("-inf")))]
        if not self.chain:
            return tuple(result)
        tokens, scores = torch.tensor([list(ids)]), (result[0].scores if result else logits)[None].clone()
        for processor in self.chain:
            name = STAGE_OF[type(processor).__name__]
            after = processor(tokens, scores)
            if name == "end bias":  # before transformers 5.4 or so, an end that was cut became NaN
                after = torch.where(scores == float("-inf"), scores, after)
            if allowed is not None:
                after = after.masked_fill(~allowed, float("-inf"))
                if bool((after == float("-inf")).all()):
                    continue
            scores = after
            result.append(SamplingStage(name, scores[0]))
        return tuple(result)

    def _draw(self, probs: Tensor) -> int:
        """One token; from logits that are NaN nothing can be drawn, so the first token stands for them."""
        if not bool(torch.isfinite(probs).all()):
            return int(torch.nan_to_num(probs).argmax())
        self._state = None
        return int(torch.multinomial(probs, 1, generator=self._generator))


def most_likely(logits: Array, count: int) -> Ids:
    """The ids of the `count` largest of [vocab], or all, largest first; NaN stands before all else.

    By numpy: on logits that it has not seen, torch.topk takes twice as long. Of many, all that are smaller than the largest of
    `count` groups are left out first: to look at each once costs a fifth of sorting them by halves.
    """
    groups = GROUPS * count
    if len(logits) <= count:
        ids = np.arange(len(logits))
    elif len(logits) <= max(SMALL, groups):
        ids = logits.argpartition(len(logits) - count)[-count:]
    else:
        largest = logits[: len(logits) // groups * groups].reshape(-1, groups).max(axis=0)
        ids = _not_below(logits, _kth(largest, count))
        values = logits[ids]
        ids = ids[_not_below(values, _kth(values, count))]
    return ids[logits[ids].argsort()[::-1][:count]]


def _kth(values: Array, count: int) -> np.float32:
    """The `count`-th largest."""
    kth: np.float32 = np.partition(values, len(values) - count)[-count]
    return kth


def _not_below(values: Array, least: np.float32) -> Ids:
    ids: Ids = np.flatnonzero(~(values < least))  # NaN is not below
    return ids


def rank(logits: Array, token_id: int) -> int:
    """How many tokens have a larger logit, [vocab]; -1 from NaN."""
    own = logits[token_id]
    return -1 if np.isnan(own) else int(np.count_nonzero(logits > own))


def distribution(logits: Array, token_id: int, most: float) -> tuple[Array, float, float]:
    """[vocab] fp32, whose largest is `most` -> (probabilities [vocab] fp32, ln p of the token, entropy in nats); NaN stays NaN.

    The sums run in fp64: in fp32, tens of thousands of terms cost two digits of every probability. By numpy, since after a small
    model's forward pass each call of torch costs several times its arithmetic.
    """
    if not math.isfinite(most):
        return np.full_like(logits, np.nan), math.nan, math.nan
    shifted = logits - np.float32(most)
    weights = np.exp(shifted)
    total = float(weights.astype(np.float64).sum())
    logprob = float(shifted[token_id]) - math.log(total)
    np.maximum(shifted, LEAST, out=shifted)
    shifted *= weights
    entropy = math.log(total) - float(shifted.astype(np.float64).sum()) / total
    weights /= np.float32(total)
    return weights, logprob, max(entropy, 0.0)


STAGE_OF = {
    "SequenceBiasLogitsProcessor": "sequence bias",
    "EncoderRepetitionPenaltyLogitsProcessor": "prompt penalty",
    "RepetitionPenaltyLogitsProcessor": "penalty",
    "NoRepeatNGramLogitsProcessor": "no n-gram",
    "EncoderNoRepeatNGramLogitsProcessor": "prompt n-gram",
    "NoBadWordsLogitsProcessor": "bad words",
    "MinLengthLogitsProcessor": "min length",
    "MinNewTokensLengthLogitsProcessor": "min tokens",
    "ForcedBOSTokenLogitsProcessor": "forced start",
    "ForcedEOSTokenLogitsProcessor": "forced end",
    "InfNanRemoveLogitsProcessor": "finite",
    "ExponentialDecayLengthPenalty": "end bias",
    "SuppressTokensLogitsProcessor": "suppressed",
    "SuppressTokensAtBeginLogitsProcessor": "not first",
    "TemperatureLogitsWarper": "temperature",
    "TopHLogitsWarper": "top-h",
    "TopKLogitsWarper": "top-k",
    "TopPLogitsWarper": "top-p",
    "MinPLogitsWarper": "min-p",
    "TypicalLogitsWarper": "typical-p",
    "EpsilonLogitsWarper": "epsilon",
    "EtaLogitsWarper": "eta",
    "LogitNormalization": "normalise",
}


def build_chain(sampling: Sampling) -> LogitsProcessorList | None:
    """Penalty, temperature, top-k, top-p, min-p, as transformers' generate orders them; None where nothing is to be done."""
    if sampling.greedy and sampling.repetition_penalty == 1:
        return None  # transformers takes a second to be imported, and some backends do without it

    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if not sampling.greedy:
        if sampling.temperature != 1:
            chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            chain.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            chain.append(TopPLogitsWarper(float(sampling.top_p)))
        if sampling.min_p > 0:
            chain.append(MinPLogitsWarper(float(sampling.min_p)))
    return chain if len(chain) else None
