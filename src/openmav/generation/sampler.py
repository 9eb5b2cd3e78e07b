"""Choosing the next token: transformers' own logits processors in its order, a private generator, and the numbers to show.

The raw logits are never changed; what sampling does to them is kept beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from openmav.backends.base import Numbers
from openmav.backends.shared.largest import most_likely
from openmav.measures.base import SamplingStage, array_of
from openmav.record import RANK_EDGES, Array
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import LogitsProcessorList

LEAST = np.float32(-200.0)  # stands for the logarithm of a weight that is 0, -inf as it may be, so that 0 ln 0 = 0


@dataclass(frozen=True)
class DrawnToken:
    """A chosen token, and what of its distribution was needed to choose it.

    `sampled_probs` [vocab] is as in Choice; when greedy the most likely token, all of that distribution.
    """

    token_id: int
    sampled_probs: Numbers | int
    stages: tuple[SamplingStage, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A chosen token and the distribution that it came from, fp32 on the CPU: arrays where the logits were one, else tensors."""

    token_id: int
    logprob: float  # raw, natural log
    entropy: float  # of the raw distribution, nats
    probs: Any  # [vocab] raw
    sampled_probs: Any  # [vocab] after the chain; one-hot when greedy
    top_ids: Any  # [n] the most likely by raw logits, in order
    stages: tuple[SamplingStage, ...] = ()  # what each stage of the chain left, in their order; stages that are off are not there
    rank: int = -1  # how many tokens have a larger raw logit; -1 where the logits are NaN


State: TypeAlias = "Tensor | int"  # of a generator; a number: the beginning of that seed's stream


class Sampler:
    """Draws one token after another; the state of its generator can be read and put back, so that a step can be undone.

    `build` makes the logits processors for a sampling; None from it: nothing is to be done. The generator is torch's, and made when
    something is drawn: greedy choosing needs none.
    """

    def __init__(self, sampling: Sampling, build: Callable[[Sampling], LogitsProcessorList | None] | None = None) -> None:
        self._generator: torch.Generator | None = None
        self._state: State | None = sampling.seed  # since the last draw
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
    def state(self) -> State:
        """Of the generator; one and the same object until something is drawn."""
        if self._state is None:
            assert self._generator is not None
            self._state = self._generator.get_state()
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._generator, self._state = None, state

    def restart(self) -> None:
        """The stream of random numbers from its beginning."""
        self.state = self.sampling.seed

    def choose(self, logits: Numbers, ids: Sequence[int], forced: int | None = None, allowed: Tensor | None = None) -> Choice:
        """[vocab] fp32 and the tokens so far -> a Choice. A forced token is not drawn and leaves the generator alone.

        `allowed` [vocab] bool: what a constraint leaves, before all else; None: everything.
        """
        return self.describe(logits, self.draw(logits, ids, forced, allowed))

    def draw(self, logits: Numbers, ids: Sequence[int], forced: int | None = None, allowed: Tensor | None = None) -> DrawnToken:
        """The token of `choose` alone; what it came from can be described later."""
        stages = self._through_the_chain(logits, ids, allowed) if self.chain or allowed is not None else ()
        scores = stages[-1].scores if stages else logits
        if self.sampling.greedy:
            largest = int(array_of(scores).argmax())
            return DrawnToken(largest if forced is None else forced, largest, stages)
        import torch

        sampled_probs = torch.softmax(torch.as_tensor(scores), dim=-1)
        return DrawnToken(self._draw(sampled_probs) if forced is None else forced, sampled_probs, stages)

    @staticmethod
    def describe(logits: Numbers, drawn: DrawnToken) -> Choice:
        """The distribution that a token was drawn from, [vocab] fp32."""
        scores, token, sampled_probs = array_of(logits), drawn.token_id, drawn.sampled_probs
        top = most_likely(scores, RANK_EDGES[-1])
        leads = len(top) > 1 and bool(scores[top[0]] > scores[top[1]])
        if isinstance(sampled_probs, int):
            sampled = np.zeros(len(scores), dtype=np.float32)
            sampled[sampled_probs] = 1.0
            sampled_probs = sampled
        probs, logprob, entropy = distribution(scores, token, float(scores[top[0]]))
        place = 0 if leads and token == top[0] else rank(scores, token)
        shown: Any = (probs, array_of(sampled_probs), top)
        if not isinstance(logits, np.ndarray):
            import torch

            shown = [torch.from_numpy(one) for one in shown]
        probs, sampled_probs, top = shown
        return Choice(token, logprob, entropy, probs, sampled_probs, top, drawn.stages, place)

    def _through_the_chain(self, given: Numbers, ids: Sequence[int], allowed: Tensor | None) -> tuple[SamplingStage, ...]:
        """What each stage that is on makes of [vocab] scores, one after the other.

        A constraint wins over the model's own settings: a stage that would leave no token of those allowed is left out.
        """
        import torch

        with torch.inference_mode():
            return self._stages(torch.as_tensor(given), ids, allowed)

    def _stages(self, logits: Tensor, ids: Sequence[int], allowed: Tensor | None) -> tuple[SamplingStage, ...]:
        import torch

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
        import torch

        if not bool(torch.isfinite(probs).all()):
            return int(torch.nan_to_num(probs).argmax())
        if self._generator is None:
            self._generator = torch.Generator()
            if isinstance(self._state, int):
                self._generator.manual_seed(self._state)
            elif self._state is not None:
                self._generator.set_state(self._state)
        self._state = None
        return int(torch.multinomial(probs, 1, generator=self._generator))


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
