"""Choosing the next token: transformers' own logits processors in its order, a private generator, and the numbers to show.

The raw logits are never changed; what sampling does to them is kept beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openmav.record import RANK_EDGES
from openmav.sampling import Sampling

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


@dataclass(frozen=True)
class Stage:
    """One stage of the chain by its name in record.SAMPLING_STAGES, and the scores [vocab] that it left: -inf for what it cut."""

    name: str
    scores: Tensor


@dataclass(frozen=True)
class Choice:
    """A chosen token and the distribution that it came from; tensors are fp32 on the CPU."""

    token_id: int
    logprob: float  # raw, natural log
    entropy: float  # of the raw distribution, nats
    probs: Tensor  # [vocab] raw
    sampled_probs: Tensor  # [vocab] after the chain; one-hot when greedy
    top_ids: Tensor  # [n] the most likely by raw logits, in order
    stages: tuple[Stage, ...] = ()  # what each stage of the chain left, in their order; stages that are off are not there
    rank: int = -1  # how many tokens have a larger raw logit; -1 where the logits are NaN


class Sampler:
    """Draws one token after another; the state of its generator can be read and put back, so that a step can be undone."""

    def __init__(self, sampling: Sampling) -> None:
        self.generator = torch.Generator().manual_seed(sampling.seed)
        self.use(sampling)

    def use(self, sampling: Sampling) -> None:
        """Choose like this from now on; the stream of random numbers goes on."""
        self.sampling = sampling
        self.chain = build_chain(sampling)

    @torch.inference_mode()
    def choose(self, logits: Tensor, ids: Sequence[int], forced: int | None = None, allowed: Tensor | None = None) -> Choice:
        """[vocab] fp32 and the tokens so far -> a Choice. A forced token is not drawn and leaves the generator alone.

        `allowed` [vocab] bool: what a constraint leaves, before all else; None: everything.
        """
        stages = self._through_the_chain(logits, ids, allowed)
        top = torch.topk(logits, min(RANK_EDGES[-1], len(logits)))
        if self.sampling.greedy:
            token = int(stages[-1].scores.argmax()) if stages else _likeliest(logits, top.values, top.indices)
            sampled = torch.zeros_like(logits)
            sampled[token] = 1.0
        else:
            sampled = torch.softmax(stages[-1].scores if stages else logits, dim=-1)
            token = forced if forced is not None else self._draw(sampled)
        token = token if forced is None else forced
        probs, logprob, entropy = distribution(logits, token)
        return Choice(token, logprob, entropy, probs, sampled, top.indices, stages, rank(logits, token))

    def _through_the_chain(self, logits: Tensor, ids: Sequence[int], allowed: Tensor | None) -> tuple[Stage, ...]:
        """What each stage that is on makes of [vocab] scores, one after the other."""
        found = [] if allowed is None else [Stage("constraint", logits.masked_fill(~allowed, float("-inf")))]
        if not self.chain:
            return tuple(found)
        tokens, scores = torch.tensor([list(ids)]), (found[0].scores if found else logits)[None].clone()
        for processor in self.chain:
            scores = processor(tokens, scores)
            found.append(Stage(_STAGE_OF[type(processor).__name__], scores[0]))
        return tuple(found)

    def _draw(self, probs: Tensor) -> int:
        """One token; from logits that are NaN nothing can be drawn, so the first token stands for them."""
        if not bool(torch.isfinite(probs).all()):
            return int(torch.nan_to_num(probs).argmax())
        return int(torch.multinomial(probs, 1, generator=self.generator))


def _likeliest(logits: Tensor, values: Tensor, indices: Tensor) -> int:
    """The argmax of [vocab], which the sorted values and their ids tell unless the first two tie."""
    first = values[:2].tolist()
    return int(indices[0]) if len(first) == 2 and first[0] > first[1] else int(logits.argmax())


def rank(logits: Tensor, token_id: int) -> int:
    """How many tokens have a larger logit, [vocab]; -1 from NaN."""
    own = logits[token_id]
    return -1 if bool(torch.isnan(own)) else int((logits > own).sum())


def distribution(logits: Tensor, token_id: int) -> tuple[Tensor, float, float]:
    """[vocab] fp32 -> (probabilities [vocab] fp32, ln p of the token, entropy in nats); NaN stays NaN.

    The sums run in fp64: in fp32, tens of thousands of terms cost two digits of every probability.
    """
    shifted = logits - logits.max()
    weights = shifted.exp()
    total = float(weights.sum(dtype=torch.float64))
    log_total, log_weight = math.log(total), float(shifted[token_id])
    weighted = shifted.clamp_min_(-200.0).mul_(weights)  # 0 ln 0 = 0: where the weight is 0, a finite number stands for its logarithm
    entropy = log_total - float(weighted.sum(dtype=torch.float64)) / total
    return weights.div_(total), log_weight - log_total, max(entropy, 0.0) if not math.isnan(entropy) else entropy


_STAGE_OF = {
    "RepetitionPenaltyLogitsProcessor": "penalty",
    "TemperatureLogitsWarper": "temperature",
    "TopKLogitsWarper": "top-k",
    "TopPLogitsWarper": "top-p",
    "MinPLogitsWarper": "min-p",
}


def build_chain(sampling: Sampling) -> LogitsProcessorList | None:
    """Penalty, temperature, top-k, top-p, min-p, as transformers' generate orders them; None where nothing is to be done."""
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
